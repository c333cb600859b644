import { randomBytes } from "node:crypto";
import { must, type Outcome, type RunOptions, run } from "../e2e/harness/run-command.ts";

/** Network namespaces of a test: made and removed together, and joined only to each other. */
export class NetworkNamespaces implements AsyncDisposable {
  readonly #prefix = `kr${randomBytes(3).toString("hex")}`;
  readonly #names = new Set<string>();

  /** Makes one with its loopback interface up. */
  async add(name: string): Promise<string> {
    const full = this.#full(name);
    await must("ip", ["netns", "add", full]);
    this.#names.add(full);
    await this.ip(name, "link set lo up");
    return this.path(name);
  }

  async remove(name: string): Promise<void> {
    this.#names.delete(this.#full(name));
    await must("ip", ["netns", "delete", this.#full(name)]);
  }

  path(name: string): string {
    return `/run/netns/${this.#full(name)}`;
  }

  /** One `ip` command, in words. */
  ip(name: string, words: string): Promise<string> {
    return must("ip", ["-netns", this.#full(name), ...words.split(" ")]);
  }

  /** A program that must succeed. */
  run(name: string, command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
    return must("nsenter", [`--net=${this.path(name)}`, "--", command, ...args], options);
  }

  try(name: string, command: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return run("nsenter", [`--net=${this.path(name)}`, "--", command, ...args], options);
  }

  /** A veth pair between two of them, both ends up. */
  async join(a: string, aDevice: string, b: string, bDevice: string): Promise<void> {
    await this.ip(a, `link add ${aDevice} type veth peer name ${bDevice} netns ${this.#full(b)}`);
    await this.ip(a, `link set ${aDevice} up`);
    await this.ip(b, `link set ${bDevice} up`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#names) await run("ip", ["netns", "delete", name]);
  }

  #full(name: string): string {
    return `${this.#prefix}-${name}`;
  }
}

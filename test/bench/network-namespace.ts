import { randomInt } from "node:crypto";
import { must, run } from "../e2e/harness/run-command.ts";

/** A network namespace that is joined to this machine by a veth pair, as a VM on a bridge would be. */
export class NetworkNamespace implements AsyncDisposable {
  readonly name: string;
  /** Address inside. */
  readonly address: string;

  private constructor(name: string, address: string) {
    this.name = name;
    this.address = address;
  }

  /** @param name at most 14 characters, so that an interface can be named after it */
  static async create(name: string): Promise<NetworkNamespace> {
    // 198.18.0.0/15 is kept for measurements (RFC 2544), so nothing else is routed there.
    const network = `198.18.${randomInt(256)}.${randomInt(64) * 4}`;
    const host = (n: number): string => network.replace(/\d+$/, (last) => String(Number(last) + n));
    const outside = `${name}h`;
    const made = new NetworkNamespace(name, host(2));
    await must("ip", ["netns", "add", name]);
    try {
      await must("ip", ["link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name]);
      await must("ip", ["address", "add", `${host(1)}/30`, "dev", outside]);
      await must("ip", ["link", "set", outside, "up"]);
      for (const args of [
        ["address", "add", `${made.address}/30`, "dev", "eth0"],
        ["link", "set", "eth0", "up"],
        ["link", "set", "lo", "up"],
      ]) {
        await must("ip", ["-netns", name, ...args]);
      }
      return made;
    } catch (e) {
      await made[Symbol.asyncDispose]();
      throw e;
    }
  }

  /** Program and arguments that run what follows inside. */
  get through(): readonly string[] {
    return ["ip", "netns", "exec", this.name];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run("ip", ["link", "delete", `${this.name}h`]); // not there when it could not be made
    await must("ip", ["netns", "delete", this.name]);
  }
}

import { createHash } from "node:crypto";
import { appendFileSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Call } from "../../src/base/call.ts";
import { exec } from "../../src/base/exec.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { Finding, Instance, InstanceSpec, Provider } from "../../src/provider/index.ts";

/**
 * A cloud that is a program: `<program> create <instance id> <user-data file>` makes a "VM" and prints its address and
 * port as two words, `<program> delete <instance id>` removes it. Both must be repeatable. `times` in its directory has a
 * line for each VM: how long the provider took, µs.
 */
export class ScriptProvider implements Provider {
  readonly name = "script";
  readonly #dir: string;
  readonly #program: string;

  constructor(options: { readonly dir: string; readonly program: string }) {
    this.#dir = options.dir;
    this.#program = options.program;
    mkdirSync(options.dir, { recursive: true, mode: 0o700 });
  }

  async createInstance(spec: InstanceSpec, call: Call): Promise<Instance> {
    const token = createHash("sha256").update(`${spec.tags.cluster}/${spec.tags.createOperation}`).digest("hex");
    const id = `script-${token.slice(0, 12)}` as InstanceId;
    const known = this.#read(id);
    if (known !== undefined) return known;
    const begun = performance.now();
    const userData = join(this.#dir, `${id}.user-data`);
    writeFileSync(userData, spec.userData, { mode: 0o600 });
    const { stdout } = await exec(this.#program, ["create", id, userData], call);
    const [address = "", port = ""] = stdout.trim().split(/\s+/);
    const { name, tags } = spec;
    const made: Instance = {
      ...{ id, name, tags, state: "running", addresses: [address], createdAt: new Date() },
      ...(port === "" ? {} : { tunnelPort: Number(port) }),
    };
    writeFileSync(join(this.#dir, `.${id}`), JSON.stringify(made));
    renameSync(join(this.#dir, `.${id}`), join(this.#dir, `${id}.json`));
    appendFileSync(join(this.#dir, "times"), `${id} ${Math.round((performance.now() - begun) * 1000)}\n`);
    return made;
  }

  async deleteInstance(id: InstanceId, call: Call): Promise<"deleting" | "gone"> {
    if (this.#read(id) === undefined) return "gone";
    await exec(this.#program, ["delete", id], call);
    rmSync(join(this.#dir, `${id}.json`), { force: true });
    rmSync(join(this.#dir, `${id}.user-data`), { force: true });
    return "gone";
  }

  async getInstance(id: InstanceId): Promise<Instance | undefined> {
    return this.#read(id);
  }

  async listInstances(cluster: string): Promise<readonly Instance[]> {
    return readdirSync(this.#dir)
      .filter((name) => name.endsWith(".json"))
      .flatMap((name) => this.#read(name.slice(0, -".json".length)) ?? [])
      .filter((instance) => instance.tags.cluster === cluster);
  }

  async consoleOutput(): Promise<undefined> {
    return undefined;
  }

  async verify(): Promise<readonly Finding[]> {
    return [{ subject: "script", state: "ok", detail: this.#program }];
  }

  async close(): Promise<void> {
    // Its VMs live on.
  }

  #read(id: string): Instance | undefined {
    try {
      const stored = JSON.parse(readFileSync(join(this.#dir, `${id}.json`), "utf8")) as Instance;
      return { ...stored, createdAt: new Date(stored.createdAt) };
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw e;
    }
  }
}

import { randomBytes } from "node:crypto";
import { readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { Fault } from "../../src/base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../../src/base/files.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { OwnerTags } from "../../src/provider/index.ts";
import type { TapNetwork, VmmHandle } from "../../src/vmm/index.ts";

/** `instance.json`: what the provider knows of one VM. Written before the VM starts; holds no user-data. */
export interface InstanceRecord {
  readonly version: 1;
  readonly id: InstanceId;
  readonly name: string;
  readonly tags: OwnerTags;
  readonly sandboxId: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  /** RFC 3339 */
  readonly createdAt: string;
  /** Its place on the bridge; none: user-mode network. Nobody else gets the address before this record is gone. */
  readonly tap?: TapNetwork;
  /** Set when the VM ran. Its absence means that a create was cut short and may be taken up again. */
  readonly started?: VmmHandle;
}

const FILE = "instance.json";
/** Of directories that are being made; they get their real name when they are complete. */
const UNFINISHED = ".new-";

/** Leftovers of a process that died while it made a directory are removed after this, ms. */
const UNFINISHED_AFTER_MS = 60_000;

/** The directories of all instances, one each. */
export class InstanceDirectory {
  readonly #stateDir: string;

  constructor(stateDir: string) {
    this.#stateDir = stateDir;
  }

  /** Directory that the VM's driver owns. */
  vmDir(id: InstanceId): string {
    return join(this.#stateDir, id, "vm");
  }

  /** Makes an instance's directory, complete or not at all. One that is there already stays as it is. */
  async create(record: InstanceRecord): Promise<void> {
    await this.#removeUnfinished();
    const unfinished = join(this.#stateDir, `${UNFINISHED}${record.id}-${randomBytes(4).toString("hex")}`);
    await mkdirPrivate(join(unfinished, "vm"));
    await writeFileAtomic(join(unfinished, FILE), JSON.stringify(record, undefined, 2));
    try {
      await rename(unfinished, join(this.#stateDir, record.id));
    } catch (e) {
      await rm(unfinished, { recursive: true, force: true });
      if (!["ENOTEMPTY", "EEXIST"].includes((e as NodeJS.ErrnoException).code ?? "")) throw e;
    }
  }

  async update(record: InstanceRecord): Promise<void> {
    await writeFileAtomic(join(this.#stateDir, record.id, FILE), JSON.stringify(record, undefined, 2));
  }

  /** @throws Fault internal when the file is not ours */
  async read(id: InstanceId): Promise<InstanceRecord | undefined> {
    const path = join(this.#stateDir, id, FILE);
    const text = await readIfThere(path);
    if (text === undefined) return undefined;
    try {
      const record = JSON.parse(text) as InstanceRecord;
      if (record.version === 1) return record;
    } catch {
      // Reported below, like a version that we do not know.
    }
    throw new Fault("internal", `${path} was not written by this version: move ${id} away if it is not needed`, {
      instanceId: id,
    });
  }

  /** All that are complete. */
  async list(): Promise<InstanceRecord[]> {
    const names = (await this.#names()).filter((name) => name.startsWith("local-"));
    const records = await Promise.all(names.map((name) => this.read(name as InstanceId)));
    return records.filter((record) => record !== undefined); // one may be deleted while we read
  }

  async remove(id: InstanceId): Promise<void> {
    await rm(join(this.#stateDir, id), { recursive: true, force: true });
  }

  /** Nothing ran in them yet. Not the young ones: another process may be making them. */
  async #removeUnfinished(): Promise<void> {
    for (const name of (await this.#names()).filter((n) => n.startsWith(UNFINISHED))) {
      const path = join(this.#stateDir, name);
      const age = await stat(path).then(
        ({ mtimeMs }) => Date.now() - mtimeMs,
        () => 0, // it has got its real name meanwhile
      );
      if (age > UNFINISHED_AFTER_MS) await rm(path, { recursive: true, force: true });
    }
  }

  async #names(): Promise<string[]> {
    return readdir(this.#stateDir).catch((e: NodeJS.ErrnoException) => {
      if (e.code === "ENOENT") return []; // no VM was ever made
      throw e;
    });
  }
}

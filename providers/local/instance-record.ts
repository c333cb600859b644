import { randomBytes } from "node:crypto";
import { readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { Fault } from "../../src/base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../../src/base/files.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { OwnerTags } from "../../src/provider/index.ts";
import type { VmmHandle } from "../../src/vmm/index.ts";

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
  /** Set when the VM ran. Its absence means that a create was cut short and may be taken up again. */
  readonly started?: VmmHandle;
}

const FILE = "instance.json";
/** Of directories that are being made; they get their real name when they are complete. */
const UNFINISHED = ".new-";

/** The directories of all instances, one each. */
export class InstanceDirectory {
  readonly #stateDir: string;

  private constructor(stateDir: string) {
    this.#stateDir = stateDir;
  }

  /** Removes what an earlier process was making when it died: nothing ran in it yet. */
  static async open(stateDir: string): Promise<InstanceDirectory> {
    await mkdirPrivate(stateDir);
    for (const name of await readdir(stateDir)) {
      if (name.startsWith(UNFINISHED)) await rm(join(stateDir, name), { recursive: true, force: true });
    }
    return new InstanceDirectory(stateDir);
  }

  /** Directory that the VM's driver owns. */
  vmDir(id: InstanceId): string {
    return join(this.#stateDir, id, "vm");
  }

  /** Makes an instance's directory, complete or not at all. One that is there already stays as it is. */
  async create(record: InstanceRecord): Promise<void> {
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
    const names = (await readdir(this.#stateDir)).filter((name) => name.startsWith("local-"));
    const records = await Promise.all(names.map((name) => this.read(name as InstanceId)));
    return records.filter((record) => record !== undefined); // one may be deleted while we read
  }

  async remove(id: InstanceId): Promise<void> {
    await rm(join(this.#stateDir, id), { recursive: true, force: true });
  }
}

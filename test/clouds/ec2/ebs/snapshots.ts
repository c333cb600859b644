import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The only size that EBS snapshots have. Source: EBS user guide, "EBS direct APIs". */
export const BLOCK_BYTES = 524_288;

export interface Snapshot {
  readonly id: string;
  readonly sizeGiB: number;
  readonly description: string;
  readonly startedAt: number;
  readonly encrypted: boolean;
  readonly kmsKeyArn: string | undefined;
  readonly tags: Map<string, string>;
  /** When a snapshot that nobody writes to any more fails, ms. */
  readonly timeoutMs: number;
  state: "pending" | "completed" | "error";
  lastWriteAt: number;
  completedAt?: number;
  /** Checksums (base64) of the blocks that were written, by index. */
  readonly blocks: Map<number, string>;
}

/** An account's snapshots: a sparse file for each that has content. */
export class Snapshots implements Disposable {
  readonly all = new Map<string, Snapshot>();
  #folder: string | undefined;

  create(made: Omit<Snapshot, "id" | "blocks" | "state">): Snapshot {
    const id = `snap-0${randomBytes(8).toString("hex")}`;
    const snapshot: Snapshot = { ...made, id, state: "pending", blocks: new Map() };
    this.all.set(id, snapshot);
    return snapshot;
  }

  async write(snapshot: Snapshot, index: number, data: Uint8Array, checksum: string): Promise<void> {
    await using file = await this.#open(snapshot);
    await file.write(data, 0, data.length, index * BLOCK_BYTES);
    snapshot.blocks.set(index, checksum);
  }

  async read(snapshot: Snapshot, index: number): Promise<Buffer> {
    const data = Buffer.alloc(BLOCK_BYTES);
    await using file = await this.#open(snapshot);
    await file.read(data, 0, data.length, index * BLOCK_BYTES);
    return data;
  }

  /** Raw disk with its content; undefined for one that was not made through this API. */
  async file(id: string): Promise<string | undefined> {
    const snapshot = this.all.get(id);
    if (snapshot === undefined) return undefined;
    await (await this.#open(snapshot)).close();
    return this.#path(id);
  }

  async delete(id: string): Promise<void> {
    this.all.delete(id);
    if (this.#folder !== undefined) await rm(this.#path(id), { force: true });
  }

  [Symbol.dispose](): void {
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true });
  }

  async #open(snapshot: Snapshot): Promise<FileHandle> {
    const path = this.#path(snapshot.id);
    try {
      return await open(path, "r+");
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== "ENOENT") throw e;
    }
    const file = await open(path, "a+");
    await file.truncate(snapshot.sizeGiB * 1024 ** 3);
    await file.close();
    return open(path, "r+");
  }

  #path(id: string): string {
    this.#folder ??= mkdtempSync(join(tmpdir(), "ebs-"));
    return join(this.#folder, id);
  }
}

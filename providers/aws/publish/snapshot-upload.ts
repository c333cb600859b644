import { createHash } from "node:crypto";
import type { CompleteSnapshotCommandInput, PutSnapshotBlockCommandInput } from "@aws-sdk/client-ebs";
import type { Call } from "../../../src/base/call.ts";
import type { PublishProgress } from "../../../src/provider/index.ts";
import type { PublishConfig } from "./config.ts";
import { BLOCK_BYTES, type DiskBlock, diskBlocks } from "./disk-blocks.ts";
import type { ImagesApi } from "./images-api.ts";
import { reasonOf } from "./publish-faults.ts";

/** On a snapshot: how many of the blocks that have to be sent are there, counted from the first. */
export const UPLOADED_TAG = "kata-remote:uploaded-blocks";

/** After how many blocks that is written down: 32 MiB. */
const NOTE_EVERY = 64;

export interface SnapshotUploadDeps {
  readonly api: ImagesApi;
  readonly config: PublishConfig;
  readonly onProgress: (progress: PublishProgress) => void;
}

/**
 * Sends a disk into a pending snapshot and completes it; what is all zero is not sent. Done again it goes on where it
 * was, as the snapshot's own tag says.
 * @param uploaded blocks that need not be sent again
 */
export async function uploadSnapshot(
  snapshotId: string,
  path: string,
  uploaded: number,
  deps: SnapshotUploadDeps,
  call: Call,
): Promise<void> {
  const { api, config, onProgress } = deps;
  onProgress({ step: "reading the disk" });
  const total = await countBlocks(path, call);
  const report = (done: number): void =>
    onProgress({ step: "uploading", doneBytes: done * BLOCK_BYTES, totalBytes: total * BLOCK_BYTES });

  const whole = createHash("sha256");
  const window = new UploadWindow(config.uploads, uploaded);
  let position = 0;
  let sent = uploaded;
  let noted = uploaded;
  report(sent);
  try {
    for await (const block of diskBlocks(path, call)) {
      whole.update(block.digest);
      const at = position;
      position += 1;
      if (at < uploaded) continue;
      await window.enter(at, async () => {
        await api.putSnapshotBlock(requestOf(snapshotId, block), call);
        sent += 1;
        report(sent);
      });
      if (window.reached < noted + NOTE_EVERY) continue;
      noted = window.reached;
      await api.tag(snapshotId, [{ Key: UPLOADED_TAG, Value: String(noted) }], call);
    }
  } finally {
    await window.settled();
  }
  window.throwFirst();
  if (position > uploaded) await api.tag(snapshotId, [{ Key: UPLOADED_TAG, Value: String(position) }], call);
  await complete(snapshotId, position, whole.digest("base64"), api, call);
}

async function complete(id: string, blocks: number, checksum: string, api: ImagesApi, call: Call): Promise<void> {
  const input: CompleteSnapshotCommandInput = {
    SnapshotId: id,
    ChangedBlocksCount: blocks,
    Checksum: checksum,
    ChecksumAlgorithm: "SHA256",
    ChecksumAggregationMethod: "LINEAR",
  };
  try {
    await api.completeSnapshot(input, call);
  } catch (e) {
    // No longer pending: it was completed before, by a request whose answer was lost. Its state tells how that ended.
    if (reasonOf(e) !== "INVALID_SNAPSHOT_ID") throw e;
  }
}

function requestOf(snapshotId: string, { index, data, digest }: DiskBlock): PutSnapshotBlockCommandInput {
  return {
    SnapshotId: snapshotId,
    BlockIndex: index,
    BlockData: data,
    DataLength: data.length,
    Checksum: digest.toString("base64"),
    ChecksumAlgorithm: "SHA256",
  };
}

async function countBlocks(path: string, call: Call): Promise<number> {
  let count = 0;
  for await (const _ of diskBlocks(path, call)) count += 1;
  return count;
}

/** Work that goes on beside each other, a few pieces at a time, and how far it is done without a gap. */
class UploadWindow {
  readonly #size: number;
  readonly #running = new Set<Promise<void>>();
  readonly #finished = new Set<number>();
  #reached: number;
  #failure: { readonly error: unknown } | undefined;

  /** @param start position of the first piece */
  constructor(size: number, start: number) {
    this.#size = size;
    this.#reached = start;
  }

  /** Starts a piece as soon as there is room. @throws what an earlier one has failed with */
  async enter(position: number, work: () => Promise<void>): Promise<void> {
    while (this.#running.size >= this.#size) await Promise.race(this.#running);
    this.throwFirst();
    const running = work().then(
      () => this.#finish(position),
      (error: unknown) => {
        this.#failure ??= { error };
      },
    );
    this.#running.add(running);
    void running.then(() => this.#running.delete(running));
  }

  /** The first position that is not done. */
  get reached(): number {
    return this.#reached;
  }

  async settled(): Promise<void> {
    await Promise.all(this.#running);
  }

  throwFirst(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #finish(position: number): void {
    this.#finished.add(position);
    while (this.#finished.delete(this.#reached)) this.#reached += 1;
  }
}

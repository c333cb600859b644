import { open } from "node:fs/promises";
import type { PageBlobClient } from "@azure/storage-blob";
import type { Call } from "../../../src/base/call.ts";
import { Fault } from "../../../src/base/fault.ts";
import { ended } from "../../../src/base/retry.ts";
import type { PublishProgress } from "../../../src/provider/index.ts";
import { toFault } from "../faults.ts";
import { type DiskPart, partsOf } from "./disk-parts.ts";

const PAGE_BYTES = 512;

export interface UploadOptions {
  readonly uploads: number;
  readonly attempts: number;
  readonly timeoutMs: number;
  readonly ca: string | undefined;
  readonly onProgress: (progress: PublishProgress) => void;
}

/**
 * Writes what is not zero of a file to a disk that is open for upload. What an earlier upload has written is not sent
 * again: Azure tells which pages there are.
 */
export async function uploadDisk(path: string, address: string, options: UploadOptions, call: Call): Promise<void> {
  const { uploads, onProgress } = options;
  const blob = await openBlob(address, options);
  onProgress({ step: "reading the disk" });
  const parts = await partsOf(path, call);
  const written = await writtenRanges(blob, call);
  const waiting = parts.filter(
    (part) => !written.some((r) => r.from <= part.offset && r.to >= part.offset + part.bytes),
  );
  const totalBytes = bytesOf(parts);
  let doneBytes = totalBytes - bytesOf(waiting);
  onProgress({ step: "uploading", doneBytes, totalBytes });
  await using file = await open(path, "r");
  const send = async (): Promise<void> => {
    for (let part = waiting.shift(); part !== undefined; part = waiting.shift()) {
      if (call.signal.aborted) throw ended(call);
      const { offset, bytes } = part;
      const data = Buffer.alloc(bytes);
      await file.read(data, 0, bytes, offset);
      await asked("write pages", () => blob.uploadPages(data, offset, bytes, { abortSignal: call.signal }), call);
      doneBytes += bytes;
      onProgress({ step: "uploading", doneBytes, totalBytes });
    }
  };
  const results = await Promise.allSettled(Array.from({ length: uploads }, send)); // none uses the file after this
  const failed = results.find((r) => r.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

async function openBlob(address: string, { attempts, timeoutMs, ca }: UploadOptions): Promise<PageBlobClient> {
  const { AnonymousCredential, PageBlobClient, newPipeline } = await import("@azure/storage-blob");
  const options = {
    retryOptions: { maxTries: attempts, tryTimeoutInMs: timeoutMs },
    ...(ca === undefined ? {} : { tlsOptions: { ca } }),
  };
  return new PageBlobClient(address, newPipeline(new AnonymousCredential(), options));
}

async function writtenRanges(
  blob: PageBlobClient,
  call: Call,
): Promise<readonly { readonly from: number; readonly to: number }[]> {
  const found = await asked("list pages", () => blob.getPageRanges(0, undefined, { abortSignal: call.signal }), call);
  // The SDK leaves the last byte of each range out of its count; ranges are of whole pages.
  return (found.pageRange ?? []).map(({ offset, count = 0 }) => ({
    from: offset,
    to: Math.ceil((offset + count) / PAGE_BYTES) * PAGE_BYTES,
  }));
}

async function asked<T>(action: string, ask: () => Promise<T>, call: Call): Promise<T> {
  try {
    return await ask();
  } catch (e) {
    if (call.signal.aborted) throw ended(call, e);
    const fault = toFault(e, action, {});
    if (fault.code !== "permission_denied" && fault.code !== "not_found") throw fault;
    // The address is no longer good: the next call gets another.
    const message = `${action}: the disk is not open for upload any more`;
    throw new Fault("unavailable", message, { ...fault.context, kind: "transient" }, { cause: fault });
  }
}

function bytesOf(parts: readonly DiskPart[]): number {
  return parts.reduce((sum, { bytes }) => sum + bytes, 0);
}

import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { backoffMs, ended, sleep } from "../../base/retry.ts";
import { hashFor, requireDigest } from "./digest.ts";
import type { HttpReply } from "./http-client.ts";
import type { Descriptor } from "./manifest.ts";
import { bodyPieces } from "./read-all.ts";
import type { Registry } from "./registry.ts";

export interface BlobOptions {
  readonly registry: Registry;
  readonly blob: Descriptor;
  /** Such as `layer sha256:… of registry/name:tag`. */
  readonly what: string;
  readonly stallMs: number;
  /** How often in a row it is tried without progress. */
  readonly attempts: number;
  /** Told of bytes as they come; negative when they have to come again. */
  readonly onBytes: (bytes: number) => void;
}

/** What counts as progress, bytes: a registry that drops each connection after a few is given up. */
const PROGRESS_BYTES = 64 * 1024;
const BACKOFF_MS = 250;
const MAX_BACKOFF_MS = 10_000;
const MAX_RETRY_AFTER_S = 60;

/**
 * The bytes of a blob, whatever breaks on the way: it goes on where it was (Range) after a broken or silent connection.
 * Ends normally only when size and digest are what the descriptor says.
 * @throws Fault unavailable (given up, with the place and the reason), aborted (other bytes than the digest says), and
 * what the registry refuses
 */
export async function* blobBytes(options: BlobOptions, call: Call): AsyncGenerator<Buffer, void, undefined> {
  const { registry, blob, what, stallMs, onBytes } = options;
  const hash = hashFor(blob.digest);
  let offset = 0;
  let failures = 0;
  let progressAt = 0;
  while (offset < blob.size || blob.size === 0) {
    try {
      const range = offset === 0 ? {} : { range: `bytes=${offset}-` };
      const reply = await registry.get(`blobs/${blob.digest}`, range, call);
      let skip = bytesToSkip(reply, offset, what);
      for await (let piece of bodyPieces(reply, stallMs)) {
        if (skip > 0) {
          const skipped = Math.min(skip, piece.length);
          skip -= skipped;
          piece = piece.subarray(skipped);
        }
        if (piece.length === 0) continue;
        if (offset + piece.length > blob.size) throw tooLong(what, blob);
        hash.update(piece);
        offset += piece.length;
        onBytes(piece.length);
        if (offset - progressAt >= PROGRESS_BYTES) {
          progressAt = offset;
          failures = 0;
        }
        yield piece;
      }
      if (blob.size === 0) break;
      if (offset < blob.size) throw new Fault("unavailable", `registry ${registry.host} ended it early`);
    } catch (e) {
      if (call.signal.aborted) throw ended(call, e);
      const fault = Fault.from(e);
      failures += 1;
      if (!fault.retryable) throw fault;
      if (failures >= options.attempts) throw givenUp(options, offset, fault);
      const after = Number(fault.context.retryAfter ?? 0);
      await sleep(
        Math.max(backoffMs(failures - 1, BACKOFF_MS, MAX_BACKOFF_MS), 1000 * Math.min(after, MAX_RETRY_AFTER_S)),
        call,
      );
    }
  }
  requireDigest(hash, blob.digest, what);
}

/** A server may answer a Range with everything from the start. @throws Fault unavailable for another part */
function bytesToSkip(reply: HttpReply, offset: number, what: string): number {
  if (reply.status !== 206) return offset;
  const start = /^bytes (\d+)-/.exec(reply.headers["content-range"] ?? "")?.[1];
  if (start !== undefined && Number(start) === offset) return 0;
  reply.body.destroy();
  throw new Fault("unavailable", `${reply.url.host} was asked for ${what} from byte ${offset} and sends another part`);
}

function tooLong(what: string, blob: Descriptor): Fault {
  return new Fault(
    "aborted",
    `${what} is longer than the ${blob.size} bytes of its manifest: it was tampered with or damaged`,
    {},
    { retryable: false },
  );
}

function givenUp({ registry, blob, what, attempts }: BlobOptions, offset: number, cause: Fault): Fault {
  return new Fault(
    "unavailable",
    `${what} stopped at byte ${offset} of ${blob.size} from registry ${registry.host}, and ${attempts} attempts in a row brought no more`,
    {},
    { cause },
  );
}

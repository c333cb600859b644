import type { Call } from "../../base/call.ts";
import { CopyFileRequest } from "../../gen/agent/agent.ts";

/** Sends one CopyFile call whose data is the pack. */
type SendPack = (pack: Buffer, files: number, call: Call) => Promise<void>;

/** What is larger goes alone. */
const SMALL_BYTES = 64 * 1024;
/** A pack is sent when it has this much, or with the next turn of the event loop. */
const PACK_BYTES = 512 * 1024;
const PACK_FILES = 128;

interface Pack {
  readonly parts: Buffer[];
  bytes: number;
  readonly sent: PromiseWithResolvers<void>;
}

/** Makes one call of many small files that are sent at the same time: the way to a guest is long, a file is short. */
export class FilePacker {
  readonly #send: SendPack;
  /** What waits, of each call: one that is aborted takes no other's files with it. */
  readonly #packs = new Map<Call, Pack>();

  constructor(send: SendPack) {
    this.#send = send;
  }

  /** Whether a request can be a part of a pack: a whole small file, or a link. */
  takes({ data, fileSize, offset }: CopyFileRequest): boolean {
    return data.length <= SMALL_BYTES && offset === 0n && BigInt(data.length) >= fileSize;
  }

  /** Resolves when the guest has it. */
  add(request: CopyFileRequest, call: Call): Promise<void> {
    const body = Buffer.from(CopyFileRequest.encode(request).finish());
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    let pack = this.#packs.get(call);
    if (pack === undefined) {
      pack = { parts: [], bytes: 0, sent: Promise.withResolvers() };
      this.#packs.set(call, pack);
      const waiting = pack;
      setImmediate(() => this.#flush(call, waiting));
    }
    pack.parts.push(length, body);
    pack.bytes += length.length + body.length;
    const { promise } = pack.sent;
    if (pack.bytes >= PACK_BYTES || pack.parts.length >= 2 * PACK_FILES) this.#flush(call, pack);
    return promise;
  }

  #flush(call: Call, pack: Pack): void {
    if (this.#packs.get(call) !== pack) return; // it was full before its turn came
    this.#packs.delete(call);
    const { resolve, reject } = pack.sent;
    this.#send(Buffer.concat(pack.parts), pack.parts.length / 2, call).then(resolve, reject);
  }
}

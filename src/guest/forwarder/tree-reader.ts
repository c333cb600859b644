import type { Readable } from "node:stream";
import { Fault } from "../../base/fault.ts";

/** Largest header and frame that are accepted, bytes. */
const MAX_HEADER = 64 * 1024;
const MAX_FRAME = 64 * 1024 * 1024;

/** Reads a tree connection piece by piece. The wire is described at TREE_ALPN. */
export class TreeReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stream: Readable) {
    this.#chunks = stream.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  }

  /** @throws Fault invalid_argument */
  async header(): Promise<{ readonly treeId: string }> {
    const length = await this.#u32();
    if (length > MAX_HEADER)
      throw new Fault("invalid_argument", `the tree's header has ${length} bytes, ${MAX_HEADER} is the limit`);
    let header: unknown;
    try {
      header = JSON.parse((await this.#exactly(length)).toString("utf8"));
    } catch (cause) {
      if (cause instanceof Fault) throw cause;
      throw new Fault("invalid_argument", "the tree's header is not JSON", {}, { cause });
    }
    const treeId = (header as { treeId?: unknown } | null)?.treeId;
    if (typeof treeId !== "string") throw new Fault("invalid_argument", "the tree's header has no treeId");
    return { treeId };
  }

  /** The bytes of the tar stream, in pieces as they come. */
  async *content(): AsyncGenerator<Buffer, void, undefined> {
    for (let left = await this.#u32(); left > 0; left = await this.#u32()) {
      if (left > MAX_FRAME)
        throw new Fault("invalid_argument", `a frame of the tree has ${left} bytes, ${MAX_FRAME} is the limit`);
      while (left > 0) {
        const piece = await this.#some(left);
        left -= piece.length;
        yield piece;
      }
    }
  }

  /** What comes behind the content. */
  async checksum(): Promise<string> {
    return (await this.#exactly(32)).toString("hex");
  }

  async #u32(): Promise<number> {
    return (await this.#exactly(4)).readUInt32BE(0);
  }

  async #exactly(length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let left = length; left > 0; ) {
      const part = await this.#some(left);
      parts.push(part);
      left -= part.length;
    }
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts, length);
  }

  /** At least one byte, at most `max`. @throws Fault unavailable at the end of the stream */
  async #some(max: number): Promise<Buffer> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next();
      if (next.done) throw new Fault("unavailable", "the connection ended in the middle of a tree");
      this.#rest = next.value;
    }
    const piece = this.#rest.subarray(0, max);
    this.#rest = this.#rest.subarray(piece.length);
    return piece;
  }
}

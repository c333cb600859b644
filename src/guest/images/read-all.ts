import { Fault } from "../../base/fault.ts";
import type { HttpReply } from "./http-client.ts";

/**
 * The whole body of a small answer.
 * @throws Fault resource_exhausted when it is longer than `maxBytes`, unavailable when it breaks off or stalls
 */
export async function readAll(reply: HttpReply, maxBytes: number, stallMs: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of bodyPieces(reply, stallMs)) {
    bytes += part.length;
    if (bytes > maxBytes)
      throw new Fault(
        "resource_exhausted",
        `${reply.url.host} sends more than ${maxBytes} bytes for ${reply.url.pathname}`,
      );
    parts.push(part);
  }
  return Buffer.concat(parts, bytes);
}

/**
 * The pieces of an answer's body as they come. The body is destroyed when the reader leaves.
 * @throws Fault unavailable when nothing comes for `stallMs`, or the connection breaks
 */
export async function* bodyPieces(reply: HttpReply, stallMs: number): AsyncGenerator<Buffer, void, undefined> {
  const { body, url } = reply;
  const pieces = body.iterator({ destroyOnReturn: true }) as AsyncIterator<Buffer>;
  let waiting = false;
  const timer = setTimeout(() => {
    // A reader that takes its time (a slow disk) is not the registry's fault.
    if (waiting) body.destroy(new Fault("unavailable", `${url.host} stalled: nothing came for ${stallMs / 1000} s`));
    else timer.refresh();
  }, stallMs).unref();
  try {
    for (;;) {
      waiting = true;
      timer.refresh();
      const next = await pieces.next();
      waiting = false;
      if (next.done) return;
      yield next.value;
    }
  } catch (cause) {
    if (cause instanceof Fault) throw cause;
    throw new Fault("unavailable", `the connection to ${url.host} broke`, {}, { cause });
  } finally {
    clearTimeout(timer);
    body.destroy();
  }
}

import type { Duplex } from "node:stream";

/** What one end of a connection does with its stream. */
export interface StreamEvents {
  /** May throw when the bytes are not the protocol: the connection is closed with that error. */
  onData(chunk: Buffer): void;
  onDrain(): void;
  /** Once. Undefined: the peer ended the stream, or this side destroyed it without an error. */
  onClose(error: Error | undefined): void;
}

/**
 * Takes over a stream: reads it, and destroys it when it fails, ends or carries nonsense. The end of what the peer sends
 * ends the connection, as in the Go implementation: a ttrpc peer does not half-close.
 */
export function attach(stream: Duplex, events: StreamEvents): void {
  let closed = false;
  const close = (error: Error | undefined): void => {
    if (closed) return;
    closed = true;
    stream.destroy();
    events.onClose(error);
  };
  stream.on("error", close);
  if (stream.destroyed || stream.readableEnded) {
    process.nextTick(close, stream.errored ?? undefined);
    return;
  }
  noDelay(stream);
  stream.on("end", () => close(undefined));
  stream.on("close", () => close(stream.errored ?? undefined));
  stream.on("drain", () => events.onDrain());
  stream.on("data", (chunk: Buffer) => {
    if (closed) return;
    try {
      events.onData(chunk);
    } catch (error) {
      close(error as Error);
    }
  });
}

/** Frames are written whole, so waiting for more to send (Nagle) only costs time on TCP. Other streams have no such thing. */
function noDelay(stream: Duplex): void {
  const socket = stream as Partial<{ setNoDelay(on: boolean): void }>;
  socket.setNoDelay?.(true);
}

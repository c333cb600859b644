/** containerd's streaming server through its WebSocket protocol: kubelet's own is SPDY, with the same channels. */

const OPEN_MS = 30_000;

/** Channels of a stream. Source: k8s.io/apiserver pkg/util/wsstream and kubelet pkg/kubelet/cri/streaming. */
export class ChannelSocket {
  readonly #socket: WebSocket;
  readonly #received = new Map<number, Buffer[]>();
  #closed = false;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => {
      const bytes = Buffer.from(data as ArrayBuffer);
      const channel = bytes[0] ?? -1;
      this.#received.set(channel, [...(this.#received.get(channel) ?? []), bytes.subarray(1)]);
    });
    socket.addEventListener("close", () => {
      this.#closed = true;
    });
  }

  /** @param url as the CRI gave it, http */
  static async open(url: string): Promise<ChannelSocket> {
    const socket = new WebSocket(url.replace(/^http/, "ws"), ["v4.channel.k8s.io"]);
    socket.binaryType = "arraybuffer";
    const opened = new ChannelSocket(socket);
    await new Promise<void>((resolve, reject) => {
      socket.addEventListener("open", () => resolve(), { once: true });
      socket.addEventListener("error", () => reject(new Error(`${url} takes no WebSocket`)), { once: true });
      setTimeout(() => reject(new Error(`${url} does not answer`)), OPEN_MS).unref();
    });
    return opened;
  }

  get closed(): boolean {
    return this.#closed;
  }

  send(channel: number, data: string | Uint8Array): void {
    this.#socket.send(Buffer.concat([Buffer.from([channel]), Buffer.from(data)]));
  }

  /** Everything that has come on a channel. */
  received(channel: number): Buffer {
    return Buffer.concat(this.#received.get(channel) ?? []);
  }

  close(): void {
    this.#socket.close();
  }
}

import { Socket } from "node:net";
import { Fault } from "../../base/fault.ts";
import { connectLoopback } from "../system/loopback.ts";
import { inNamespace } from "../system/namespaces.ts";
import { GuestProcess } from "./guest-process.ts";
import { InputStream } from "./input-stream.ts";
import { OutputStream } from "./output-stream.ts";

/** A connection to a port of the pod's localhost, in the place of a process: its streams are the connection's. */
export class LocalConnection extends GuestProcess {
  readonly #socket: Socket;

  /**
   * @param netns the pod's network namespace
   * @throws Fault invalid_argument for what is no port; unavailable when nothing listens there
   */
  static open(netns: string, port: string): LocalConnection {
    const number = Number(port);
    if (!/^\d+$/.test(port) || number < 1 || number > 65_535)
      throw new Fault("invalid_argument", `port "${port}" is not a number from 1 to 65535`);
    try {
      const fd = inNamespace("net", netns, () => connectLoopback(number));
      return new LocalConnection(new Socket({ fd, readable: true, writable: true, allowHalfOpen: true }));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ECONNREFUSED") throw cause;
      throw new Fault("unavailable", `nothing listens on port ${port} of the pod's localhost`, {}, { cause });
    }
  }

  private constructor(socket: Socket) {
    const { promise, resolve } = Promise.withResolvers<number>();
    let failed = false;
    socket.once("error", () => {
      failed = true;
    });
    socket.once("close", () => resolve(failed ? 1 : 0));
    const stdin = new InputStream(socket, { closable: true });
    const stdout = new OutputStream(socket);
    const resize = (): void => {
      throw new Fault("invalid_argument", "a connection has no terminal to resize");
    };
    super(0, { stdin, stdout, stderr: undefined, resize, close: () => socket.destroy() }, promise);
    this.#socket = socket;
  }

  override signal(_signal: number): void {
    if (!this.running) throw new Fault("not_found", "the connection has ended");
    this.#socket.destroy();
  }
}

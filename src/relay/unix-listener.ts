import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, lstat, rename, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate } from "../base/files.ts";

/** sun_path holds 107 bytes and a terminating zero. Source: unix(7). */
const MAX_PATH_BYTES = 107;

/** A unix socket that only its owner may connect to (0600). */
export class UnixListener {
  readonly path: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #inode: bigint;

  private constructor(path: string, server: Server, inode: bigint) {
    this.path = path;
    this.#server = server;
    this.#inode = inode;
  }

  /**
   * Listens on `path`. What is there already is replaced in one step, so that whoever connects meanwhile reaches the
   * old listener or this one: call it only when the path is known to be nobody else's (the daemon holds its lock).
   * @throws Fault invalid_argument (path too long) | permission_denied | internal
   */
  static async open(path: string, onConnection: (socket: Socket) => void): Promise<UnixListener> {
    const temporary = join(dirname(path), `.${randomBytes(4).toString("hex")}`);
    const bytes = Math.max(Buffer.byteLength(path), Buffer.byteLength(temporary));
    if (bytes > MAX_PATH_BYTES) {
      throw new Fault(
        "invalid_argument",
        `socket path ${path} is longer than the ${MAX_PATH_BYTES} bytes a unix socket may have: choose a shorter run directory`,
      );
    }
    await mkdirPrivate(dirname(path));
    const server = createServer();
    server.listen({ path: temporary });
    try {
      await once(server, "listening");
      await chmod(temporary, 0o600);
      const { ino } = await lstat(temporary, { bigint: true });
      const listener = new UnixListener(path, server, ino);
      // Nobody knows the temporary name, so no connection can have come before this.
      server.on("connection", (socket) => {
        listener.#sockets.add(socket);
        socket.once("close", () => listener.#sockets.delete(socket));
        onConnection(socket);
      });
      await rename(temporary, path);
      return listener;
    } catch (cause) {
      server.close();
      await rm(temporary, { force: true });
      throw new Fault(Fault.from(cause).code, `cannot listen on ${path}`, {}, { cause });
    }
  }

  /** Whether whoever connects to the path gets here. */
  async isReachable(): Promise<boolean> {
    const found = await lstat(this.path, { bigint: true }).catch(() => undefined); // removed: nobody gets here
    return found?.ino === this.#inode;
  }

  /** Takes no further connections; those that are open stay. */
  retire(): void {
    this.#server.close();
  }

  /** Closes the listener and its connections, and removes the socket unless another listener has taken the path. */
  async close(): Promise<void> {
    const stat = await lstat(this.path, { bigint: true }).catch(() => undefined); // removed by somebody: nothing to do
    if (stat?.ino === this.#inode) await rm(this.path, { force: true });
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

import { closeSync, openSync } from "node:fs";
import type { Socket } from "node:net";
import { Fault } from "../../base/fault.ts";

/** Source: include/uapi/linux/sched.h, include/linux/socket.h, uapi/linux/in.h, uapi/linux/netfilter_ipv4.h */
const CLONE_NEWNET = 0x40000000;
const AF_INET = 2;
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SOL_IP = 0;
const SO_ORIGINAL_DST = 80;
/** struct sockaddr_in */
const ADDRESS_BYTES = 16;

interface Libc {
  readonly setns: (fd: number, type: number) => number;
  readonly socket: (family: number, type: number, protocol: number) => number;
  readonly bind: (fd: number, address: Buffer, length: number) => number;
  readonly setsockopt: (fd: number, level: number, name: number, value: Buffer, length: number) => number;
  readonly getsockopt: (fd: number, level: number, name: number, value: Buffer, length: Buffer) => number;
  readonly errno: () => number;
}

/** Sockets in other network namespaces, and what iptables has redirected. */
export class NamespaceSockets {
  readonly #libc: Libc;

  private constructor(libc: Libc) {
    this.#libc = libc;
  }

  /** @throws Fault failed_precondition where koffi, an optional dependency, is not installed */
  static async load(): Promise<NamespaceSockets> {
    const { default: koffi } = await import("koffi").catch((cause: unknown) => {
      const message =
        "koffi cannot be loaded, which port-forward needs: install kata-remote with its optional dependencies";
      throw new Fault("failed_precondition", message, {}, { cause });
    });
    const library = koffi.load("libc.so.6");
    const bound = <T>(prototype: string): T => library.func(prototype) as unknown as T;
    return new NamespaceSockets({
      setns: bound("int setns(int fd, int type)"),
      socket: bound("int socket(int family, int type, int protocol)"),
      bind: bound("int bind(int fd, void *address, unsigned int length)"),
      setsockopt: bound("int setsockopt(int fd, int level, int name, void *value, unsigned int length)"),
      getsockopt: bound("int getsockopt(int fd, int level, int name, void *value, void *length)"),
      errno: () => koffi.errno(),
    });
  }

  /**
   * A TCP socket bound to 127.0.0.1 of a namespace; it stays there. This thread is in the namespace for that one call
   * only: nothing else of this program runs on it meanwhile.
   * @param port 0: the kernel chooses
   * @returns its descriptor, for `Server.listen`
   * @throws Fault failed_precondition
   */
  bindLocalhost(netns: string, port: number): number {
    const libc = this.#libc;
    const own = openSync("/proc/thread-self/ns/net", "r");
    try {
      const there = openSync(netns, "r");
      try {
        if (libc.setns(there, CLONE_NEWNET) !== 0) throw this.#failed(`enter ${netns}`);
        try {
          return this.#bound(port);
        } finally {
          // In a foreign namespace everything that follows would go wrong.
          if (libc.setns(own, CLONE_NEWNET) !== 0) process.abort();
        }
      } finally {
        closeSync(there);
      }
    } finally {
      closeSync(own);
    }
  }

  /** The port that a redirected connection was made to. @throws Fault failed_precondition for one that was not */
  originalPort(socket: Socket): number {
    const fd = (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle?.fd ?? -1;
    const address = Buffer.alloc(ADDRESS_BYTES);
    const length = Buffer.alloc(4);
    length.writeInt32LE(ADDRESS_BYTES);
    if (this.#libc.getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, address, length) !== 0)
      throw this.#failed("read where a connection was to go");
    return address.readUInt16BE(2);
  }

  #bound(port: number): number {
    const fd = this.#libc.socket(AF_INET, SOCK_STREAM_CLOEXEC, 0);
    if (fd < 0) throw this.#failed("make a socket");
    const yes = Buffer.alloc(4);
    yes.writeInt32LE(1);
    // Connections that ended with the daemon before this one keep the port for a minute (TIME_WAIT).
    this.#libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, yes, yes.length);
    const address = Buffer.alloc(ADDRESS_BYTES);
    address.writeUInt16LE(AF_INET, 0);
    address.writeUInt16BE(port, 2);
    address.set([127, 0, 0, 1], 4);
    if (this.#libc.bind(fd, address, address.length) === 0) return fd;
    const failed = this.#failed(`bind 127.0.0.1:${port}`);
    closeSync(fd);
    throw failed;
  }

  #failed(what: string): Fault {
    return new Fault("failed_precondition", `cannot ${what}: errno ${this.#libc.errno()}`);
  }
}

import { closeSync, openSync } from "node:fs";
import { constants } from "node:os";
import { encodeMessage, type NetlinkMessage, readMessages } from "../../../podnetwork/index.ts";

/** Source: include/uapi/linux/{sched,socket,netlink}.h */
const CLONE_NEWNET = 0x40000000;
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const PROTOCOLS = { route: 0, generic: 16 } as const;
const MSG_DONTWAIT = 0x40;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLM_F_DUMP = 0x300;
/** The kernel fills at most this for one datagram of a dump. */
const DATAGRAM_BYTES = 64 << 10;

interface Libc {
  readonly setns: (fd: number, type: number) => number;
  readonly socket: (family: number, type: number, protocol: number) => number;
  readonly send: (fd: number, data: Buffer, length: number, flags: number) => number | bigint;
  readonly recv: (fd: number, data: Buffer, length: number, flags: number) => number | bigint;
  readonly errno: () => number;
}

/** The kernel said no, or a system call failed. */
export class NetlinkError extends Error {
  readonly errno: number;
  readonly code: string;

  constructor(what: string, errno: number) {
    const code = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
    super(`${what}: ${code}`);
    this.errno = errno;
    this.code = code;
  }
}

/** Opens netlink sockets in network namespaces. */
export class Netlink {
  readonly #libc: Libc;

  private constructor(libc: Libc) {
    this.#libc = libc;
  }

  /** @returns undefined where koffi is not installed: it is an optional dependency */
  static async load(): Promise<Netlink | undefined> {
    const loaded = await import("koffi").catch(() => undefined); // `ip` and `tc` do the same, more slowly
    if (loaded === undefined) return undefined;
    const koffi = loaded.default;
    const library = koffi.load("libc.so.6");
    const bound = <T>(prototype: string): T => library.func(prototype) as unknown as T;
    return new Netlink({
      setns: bound("int setns(int fd, int type)"),
      socket: bound("int socket(int family, int type, int protocol)"),
      send: bound("long send(int fd, void *data, size_t length, int flags)"),
      recv: bound("long recv(int fd, void *data, size_t length, int flags)"),
      errno: () => koffi.errno(),
    });
  }

  /**
   * A socket stays in the namespace in which it was made. This thread is in there for that one call only: nothing else
   * of this program runs on it meanwhile, and namespaces belong to threads.
   * @param netns Undefined: this process's own
   */
  open(netns: string | undefined, protocol: keyof typeof PROTOCOLS = "route"): NetlinkSocket {
    const libc = this.#libc;
    if (netns === undefined) return new NetlinkSocket(libc, this.#socket(protocol));
    const own = openSync("/proc/thread-self/ns/net", "r");
    try {
      const target = openSync(netns, "r");
      try {
        if (libc.setns(target, CLONE_NEWNET) !== 0) throw new NetlinkError(`enter ${netns}`, libc.errno());
        try {
          return new NetlinkSocket(libc, this.#socket(protocol));
        } finally {
          // In a foreign namespace everything that follows would go wrong.
          if (libc.setns(own, CLONE_NEWNET) !== 0) process.abort();
        }
      } finally {
        closeSync(target);
      }
    } finally {
      closeSync(own);
    }
  }

  #socket(protocol: keyof typeof PROTOCOLS): number {
    const fd = this.#libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, PROTOCOLS[protocol]);
    if (fd < 0) throw new NetlinkError("netlink socket", this.#libc.errno());
    return fd;
  }
}

/** One conversation with the kernel, which answers within the call: nothing here waits. */
export class NetlinkSocket implements Disposable {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #datagram = Buffer.allocUnsafe(DATAGRAM_BYTES);
  #sequence = 0;

  constructor(libc: Libc, fd: number) {
    this.#libc = libc;
    this.#fd = fd;
  }

  /** Changes something. @throws NetlinkError */
  change(type: number, flags: number, body: Buffer): void {
    this.#ask(type, flags | NLM_F_ACK, body);
  }

  /** One answer. @throws NetlinkError */
  get(type: number, body: Buffer): Buffer {
    const [answer] = this.#ask(type, NLM_F_ACK, body);
    if (answer === undefined) throw new NetlinkError(`netlink request ${type} without answer`, 0);
    return answer.body;
  }

  /** Everything of a kind. @throws NetlinkError */
  dump(type: number, body: Buffer): readonly Buffer[] {
    return this.#ask(type, NLM_F_DUMP, body).map((message) => message.body);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }

  #ask(type: number, flags: number, body: Buffer): readonly NetlinkMessage[] {
    const sequence = ++this.#sequence;
    const request = encodeMessage(type, NLM_F_REQUEST | flags, sequence, body);
    if (Number(this.#libc.send(this.#fd, request, request.length, 0)) !== request.length)
      throw new NetlinkError(`send netlink request ${type}`, this.#libc.errno());
    const answers: NetlinkMessage[] = [];
    for (;;) {
      const length = Number(this.#libc.recv(this.#fd, this.#datagram, DATAGRAM_BYTES, MSG_DONTWAIT));
      if (length < 0) throw new NetlinkError(`answer to netlink request ${type}`, this.#libc.errno());
      for (const message of readMessages(Buffer.from(this.#datagram.subarray(0, length)), sequence)) {
        if (message.type === NLMSG_DONE) return answers;
        if (message.type !== NLMSG_ERROR) answers.push(message);
        else {
          const errno = -message.body.readInt32LE(0);
          if (errno !== 0) throw new NetlinkError(`netlink request ${type}`, errno);
          return answers;
        }
      }
    }
  }
}

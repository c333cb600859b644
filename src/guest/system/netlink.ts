import { closeSync } from "node:fs";
import { encodeMessage, readMessages } from "../../podnetwork/index.ts";
import { libc } from "./libc.ts";
import { inNamespace } from "./namespaces.ts";

/** Source: include/uapi/linux/{socket,netlink}.h */
const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const NETLINK_GENERIC = 16;
const MSG_DONTWAIT = 0x40;
const NLMSG_ERROR = 2;
const NLM_F_REQUEST_ACK = 0x1 | 0x4;
const DATAGRAM_BYTES = 32 << 10;

/** One conversation with the kernel, which answers within the call: nothing here waits. */
export class NetlinkConnection {
  readonly #fd: number;
  #sequence = 0;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Generic netlink in a namespace. */
  static generic(netns: string): NetlinkConnection {
    const open = (): number =>
      libc("int socket(int domain, int type, int protocol)", AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_GENERIC);
    return new NetlinkConnection(inNamespace("net", netns, open));
  }

  /** @returns the answer's body, empty when the kernel only says yes. @throws Error with the kernel's errno */
  request(type: number, body: Buffer): Buffer {
    const sequence = ++this.#sequence;
    const message = encodeMessage(type, NLM_F_REQUEST_ACK, sequence, body);
    libc("long send(int fd, void *data, size_t length, int flags)", this.#fd, message, message.length, 0);
    let answer = Buffer.alloc(0);
    const datagram = Buffer.alloc(DATAGRAM_BYTES);
    for (;;) {
      const args = [this.#fd, datagram, datagram.length, MSG_DONTWAIT];
      const length = libc("long recv(int fd, void *data, size_t length, int flags)", ...args);
      for (const { type: kind, body: found } of readMessages(datagram.subarray(0, length), sequence)) {
        if (kind !== NLMSG_ERROR) answer = Buffer.from(found);
        else if (found.readInt32LE(0) === 0) return answer;
        else throw new Error(`netlink request ${type}: errno ${-found.readInt32LE(0)}`);
      }
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

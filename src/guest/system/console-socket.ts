import { rmSync } from "node:fs";
import { closeQuietly } from "./descriptors.ts";
import { addressOf, libc } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 0x80801;
const SOCK_CLOEXEC = 0x80000;
const SCM_RIGHTS = 1;
const SOL_SOCKET = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;

/**
 * The socket on which an OCI runtime hands over the master of a container's terminal (`--console-socket`).
 * Node cannot receive descriptors, so the socket is plain system calls; receiving never blocks, because the runtime has
 * sent before it exits. Path at most 107 bytes.
 */
export class ConsoleSocket implements Disposable {
  readonly path: string;
  readonly #fd: number;

  constructor(path: string) {
    this.path = path;
    const address = Buffer.alloc(110); // struct sockaddr_un: family (2), path (108)
    address.writeUInt16LE(AF_UNIX, 0);
    if (Buffer.byteLength(path) > 107) throw new RangeError(`socket path "${path}" is longer than 107 bytes`);
    address.write(path, 2);
    this.#fd = libc("int socket(int domain, int type, int protocol)", AF_UNIX, SOCK_STREAM_CLOEXEC_NONBLOCK, 0);
    try {
      libc("int bind(int fd, void *address, unsigned int length)", this.#fd, address, 2 + Buffer.byteLength(path) + 1);
      libc("int listen(int fd, int backlog)", this.#fd, 1);
    } catch (e) {
      closeQuietly(this.#fd);
      throw e;
    }
  }

  /** The descriptor that was sent. Call it after the runtime has ended. @throws Error EAGAIN when nothing was sent */
  receive(): number {
    const peer = libc(
      "int accept4(int fd, void *address, void *length, int flags)",
      this.#fd,
      null,
      null,
      SOCK_CLOEXEC,
    );
    try {
      return receiveDescriptor(peer);
    } finally {
      closeQuietly(peer);
    }
  }

  [Symbol.dispose](): void {
    closeQuietly(this.#fd);
    rmSync(this.path, { force: true });
  }
}

function receiveDescriptor(socket: number): number {
  const data = Buffer.alloc(4096); // the runtime sends the terminal's name with it
  const vector = Buffer.alloc(16);
  vector.writeBigUInt64LE(addressOf(data), 0);
  vector.writeBigUInt64LE(BigInt(data.length), 8);
  const control = Buffer.alloc(24); // struct cmsghdr: length (8), level (4), type (4), then the descriptor (4, padded)
  const message = Buffer.alloc(56); // struct msghdr
  message.writeBigUInt64LE(addressOf(vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(addressOf(control), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  libc("long recvmsg(int fd, void *message, int flags)", socket, message, MSG_CMSG_CLOEXEC);
  if (control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) {
    throw new Error("the OCI runtime sent no terminal on its console socket");
  }
  return control.readInt32LE(16);
}

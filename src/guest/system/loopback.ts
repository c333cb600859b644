import { closeSync } from "node:fs";
import { type CArgument, libc } from "./libc.ts";

/** Source: include/linux/socket.h, uapi/asm-generic/socket.h; the same on x64 and arm64. */
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000;
const SOL_SOCKET = 1;
const SO_ERROR = 4;

/**
 * Connects to a port of the loopback interface in the network namespace that the calling thread is in, 127.0.0.1 before
 * ::1. On loopback the answer is there when connect returns; a listener whose queue is full is waited for by whoever
 * writes to the socket.
 * @returns its descriptor, not blocking
 * @throws Error with code ECONNREFUSED when nothing listens there
 */
export function connectLoopback(port: number): number {
  try {
    return connect(AF_INET, address4(port));
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "ECONNREFUSED") throw e;
  }
  return connect(AF_INET6, address6(port));
}

function connect(family: number, address: Buffer): number {
  const fd = libc("int socket(int domain, int type, int protocol)", family, SOCK_STREAM_NONBLOCK_CLOEXEC, 0);
  try {
    start(fd, address);
    const error = Buffer.alloc(4);
    const length = Buffer.alloc(4);
    length.writeInt32LE(4);
    const option: CArgument[] = [fd, SOL_SOCKET, SO_ERROR, error, length];
    libc("int getsockopt(int fd, int level, int name, void *value, void *length)", ...option);
    if (error.readInt32LE() !== 0) throw refused(error.readInt32LE());
    return fd;
  } catch (e) {
    closeSync(fd);
    throw e;
  }
}

function start(fd: number, address: Buffer): void {
  try {
    libc("int connect(int fd, void *address, unsigned int length)", fd, address, address.length);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "EINPROGRESS") throw e;
  }
}

function refused(errno: number): NodeJS.ErrnoException {
  const ECONNREFUSED = 111;
  const code = errno === ECONNREFUSED ? "ECONNREFUSED" : `errno ${errno}`;
  return Object.assign(new Error(`${code}: connect to loopback`), { code, errno: -errno });
}

function address4(port: number): Buffer {
  const address = Buffer.alloc(16); // struct sockaddr_in
  address.writeUInt16LE(AF_INET, 0);
  address.writeUInt16BE(port, 2);
  address.set([127, 0, 0, 1], 4);
  return address;
}

function address6(port: number): Buffer {
  const address = Buffer.alloc(28); // struct sockaddr_in6
  address.writeUInt16LE(AF_INET6, 0);
  address.writeUInt16BE(port, 2);
  address[23] = 1;
  return address;
}

import { closeSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { libc } from "./libc.ts";
import { MS_BIND, mountFlags } from "./mounts.ts";

export type NamespaceKind = "net" | "ipc" | "uts";

/** Source: include/uapi/linux/sched.h CLONE_NEW* */
const CLONE: Readonly<Record<NamespaceKind, number>> = { net: 0x40000000, ipc: 0x08000000, uts: 0x04000000 };

/**
 * Makes a namespace and keeps it alive by a bind mount on `path`. Runs without a child process: the calling thread
 * enters the new namespace, pins it and goes back, all before anything else can run on it.
 * @param setUp runs inside the new namespace; synchronous
 */
export function createNamespace(kind: NamespaceKind, path: string, setUp: () => void = () => undefined): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, "", { flag: "a" });
  const here = `/proc/thread-self/ns/${kind}`;
  const home = openSync(here, "r");
  try {
    libc("int unshare(int flags)", CLONE[kind]);
    try {
      mountFlags(here, path, null, MS_BIND, null);
      setUp();
    } finally {
      libc("int setns(int fd, int nstype)", home, CLONE[kind]);
    }
  } finally {
    closeSync(home);
  }
}

/**
 * Runs something that forks inside of a namespace, where the child then stays. This thread is back before anything else
 * can run on it.
 * @param start synchronous up to the fork
 */
export function inNamespace<T>(kind: NamespaceKind, path: string, start: () => T): T {
  const home = openSync(`/proc/thread-self/ns/${kind}`, "r");
  const there = openSync(path, "r");
  try {
    libc("int setns(int fd, int nstype)", there, CLONE[kind]);
    try {
      return start();
    } finally {
      libc("int setns(int fd, int nstype)", home, CLONE[kind]);
    }
  } finally {
    closeSync(there);
    closeSync(home);
  }
}

/** Sets the host name of the namespace that the calling thread is in. */
export function setHostname(name: string): void {
  libc("int sethostname(const char *name, size_t len)", name, Buffer.byteLength(name));
}

/** Sets the loopback interface up in the network namespace that the calling thread is in. */
export function loopbackUp(): void {
  const AF_INET = 2;
  const SOCK_DGRAM_CLOEXEC = 0x80002;
  const SIOCSIFFLAGS = 0x8914;
  const IFF_UP = 1;
  const fd = libc("int socket(int domain, int type, int protocol)", AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  try {
    const request = Buffer.alloc(40); // struct ifreq: name (16), flags (2)
    request.write("lo", 0, "latin1");
    request.writeInt16LE(IFF_UP, 16);
    libc("int ioctl(int fd, unsigned long request, ...)", fd, SIOCSIFFLAGS, "void *", request);
  } finally {
    closeSync(fd);
  }
}

import { closeSync } from "node:fs";
import { libc } from "./libc.ts";

const O_CLOEXEC = 0x80000;
const F_SETPIPE_SZ = 1031;
const TIOCSWINSZ = 0x5414;

export interface PipeEnds {
  readonly read: number;
  readonly write: number;
}

/**
 * A real pipe: unlike the socket pairs that Node makes for children, it can be opened again through /dev/stdout.
 * @param bytes capacity asked for; a smaller one is no error
 */
export function makePipe(bytes: number): PipeEnds {
  const fds = new Int32Array(2);
  libc("int pipe2(void *fds, int flags)", fds, O_CLOEXEC);
  const [read, write] = fds as unknown as [number, number];
  try {
    libc("int fcntl(int fd, int cmd, ...)", write, F_SETPIPE_SZ, "int", bytes);
  } catch {
    // over the user's quota (EPERM): the default of 64 KiB works as well
  }
  return { read, write };
}

/** Closes; an invalid descriptor is no error, since this runs on clean-up paths that may run twice. */
export function closeQuietly(fd: number | undefined): void {
  if (fd === undefined || fd < 0) return;
  try {
    closeSync(fd);
  } catch {
    // EBADF: closed already
  }
}

/** Sets the size of the terminal behind a pty's master. */
export function setWindowSize(master: number, rows: number, columns: number): void {
  const size = new Uint16Array([rows, columns, 0, 0]);
  libc("int ioctl(int fd, unsigned long request, ...)", master, TIOCSWINSZ, "void *", size);
}

import { copyFile, open, stat, truncate } from "node:fs/promises";
import { filesIn } from "./layout.ts";

/** From this size on a console is cut, bytes (1 MiB). At most twice as much is kept on disk. */
export const CONSOLE_LIMIT_BYTES = 1024 * 1024;

/**
 * Cuts a console that has grown too long: its content moves to `console.log.1` and the file starts anew. QEMU appends
 * (O_APPEND), so it writes on at the new end. What comes between copy and cut is lost, which a console can bear.
 * While nobody runs this, RLIMIT_FSIZE of QEMU is the bound (see launch.ts).
 */
export async function trimConsole(dir: string): Promise<void> {
  const files = filesIn(dir);
  for (const path of [files.console, files.log]) {
    const size = await sizeOf(path);
    if (size <= CONSOLE_LIMIT_BYTES) continue;
    if (path === files.console) await keepTail(path, size, files.consoleBefore);
    await truncate(path, 0);
  }
}

async function keepTail(path: string, size: number, target: string): Promise<void> {
  if (size <= 2 * CONSOLE_LIMIT_BYTES) return copyFile(path, target);
  const out = await open(target, "w", 0o600);
  try {
    await out.writeFile((await readEnd(path, CONSOLE_LIMIT_BYTES)) ?? "");
  } finally {
    await out.close();
  }
}

/** The newest `maxBytes` of a VM's console; undefined when it never had one. */
export async function readConsole(dir: string, maxBytes: number): Promise<string | undefined> {
  const files = filesIn(dir);
  const current = await readEnd(files.console, maxBytes);
  if (current === undefined) return undefined;
  const missing = maxBytes - current.length;
  const before = missing > 0 ? await readEnd(files.consoleBefore, missing) : undefined;
  return Buffer.concat(before === undefined ? [current] : [before, current]).toString("utf8");
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw e;
  }
}

async function readEnd(path: string, maxBytes: number): Promise<Buffer | undefined> {
  const file = await open(path, "r").catch((e: NodeJS.ErrnoException) => {
    if (e.code === "ENOENT") return undefined;
    throw e;
  });
  if (file === undefined) return undefined;
  try {
    const { size } = await file.stat();
    const buffer = Buffer.alloc(Math.min(size, maxBytes));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, size - buffer.length);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

/** Writes a file so that a reader (or a crash) sees the old content or the new one, never a part. Mode 0600 by default. */
export async function writeFileAtomic(path: string, data: string | Uint8Array, mode = 0o600): Promise<void> {
  const temporary = temporaryOf(path);
  const file = await open(temporary, "wx", mode);
  try {
    await file.writeFile(data);
    await file.sync();
  } catch (e) {
    await rm(temporary, { force: true });
    throw e;
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const folder = await open(dirname(path), "r");
  await folder.sync().finally(() => folder.close());
}

/**
 * As writeFileAtomic, for what has to outlive this process but not the machine (a run directory is lost at reboot):
 * nothing is forced to the disk.
 */
export async function replaceFile(path: string, data: string | Uint8Array, mode = 0o600): Promise<void> {
  const temporary = temporaryOf(path);
  try {
    await writeFile(temporary, data, { mode, flag: "wx" });
    await rename(temporary, path);
  } catch (e) {
    await rm(temporary, { force: true });
    throw e;
  }
}

/** Beside the file, since only then can it be renamed to it. */
function temporaryOf(path: string): string {
  return `${path}.${randomBytes(4).toString("hex")}.tmp`;
}

/** Removes what a process that was killed in the middle of a write has left in a directory. Only while nobody writes there. */
export async function removeTemporaries(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (/\.[0-9a-f]{8}\.tmp$/.test(name)) await rm(join(dir, name), { force: true });
  }
}

/** Creates a directory that only its owner can enter. */
export async function mkdirPrivate(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
}

/** Content of a text file, or undefined when there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw e;
  }
}

import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  lchownSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { posix } from "node:path";
import { Fault } from "../../base/fault.ts";
import type { CopyFileRequest } from "../../gen/agent/agent.ts";
import { makeDirectoryBelow } from "../system/confined.ts";

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const S_IFREG = 0o100000;

/**
 * One CopyFile request: a directory, a symbolic link, or a piece of a regular file. A file is collected in `<path>.tmp`
 * and renamed when the last piece is there; offset 0 starts it anew. Nothing outside of `base` can be reached, neither by
 * `..` nor by links that a container plants in its volumes. A link `..data` that is made anew removes what earlier
 * versions of that volume had.
 * @throws Fault invalid_argument for a path outside of base or through a symbolic link, or a kind of file that cannot be copied
 */
export function copyFile(base: string, request: CopyFileRequest): void {
  const copier = new FileCopier(base);
  try {
    copier.copy(request);
  } finally {
    copier.close();
  }
}

/** Copies several files one after the other: the directory of the last one stays open for the next. Close it. */
export class FileCopier {
  readonly #base: string;
  readonly #root: number;
  #parent: { readonly relative: string; readonly directory: number } | undefined;

  constructor(base: string) {
    this.#base = base;
    this.#root = openSync(base, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  /** @throws as copyFile does */
  copy(request: CopyFileRequest): void {
    const path = posix.normalize(request.path);
    if (!path.startsWith(`${this.#base}/`)) {
      throw new Fault("invalid_argument", `path "${request.path}" is not below ${this.#base}`);
    }
    const relative = path.slice(this.#base.length + 1).replace(/\/$/, "");
    try {
      const kind = request.fileMode & S_IFMT;
      if (kind === S_IFDIR) makeDirectory(this.#root, relative, request);
      else if (kind === S_IFLNK) makeLink(this.#inParent(relative, request), this.#base, request);
      else if (kind === S_IFREG || kind === 0) writePiece(this.#inParent(relative, request), request);
      else
        throw new Fault(
          "invalid_argument",
          `"${request.path}": file mode ${request.fileMode.toString(8)} is no file, directory or link`,
        );
    } catch (e) {
      throw confinementFault(e, request.path);
    }
  }

  close(): void {
    if (this.#parent !== undefined) closeSync(this.#parent.directory);
    this.#parent = undefined;
    closeSync(this.#root);
  }

  /** @returns a path that the kernel resolves relative to the parent's descriptor */
  #inParent(relative: string, request: CopyFileRequest): string {
    const parent = posix.dirname(relative);
    if (this.#parent?.relative !== parent) {
      if (this.#parent !== undefined) closeSync(this.#parent.directory);
      this.#parent = undefined;
      const directory = makeDirectoryBelow(this.#root, parent, request.dirMode & 0o7777 || 0o750);
      this.#parent = { relative: parent, directory };
    }
    return `/proc/self/fd/${this.#parent.directory}/${posix.basename(relative)}`;
  }
}

function makeDirectory(root: number, relative: string, request: CopyFileRequest): void {
  const directory = makeDirectoryBelow(root, relative, request.dirMode & 0o7777 || 0o750);
  try {
    const here = `/proc/self/fd/${directory}`;
    chownSync(here, request.uid, request.gid);
    chmodSync(here, request.fileMode & 0o7777);
  } finally {
    closeSync(directory);
  }
}

function makeLink(path: string, base: string, request: CopyFileRequest): void {
  const isData = posix.basename(path) === DATA;
  // The next daemon does not know which names of a volume are there.
  if (!isData && linkTarget(path) === String(Buffer.from(request.data))) return;
  rmSync(`${path}.tmp`, { force: true });
  symlinkSync(Buffer.from(request.data), `${path}.tmp`);
  lchownSync(`${path}.tmp`, request.uid, request.gid);
  renameSync(`${path}.tmp`, path);
  if (isData) dropOldVersions(posix.dirname(path), base, String(Buffer.from(request.data)));
}

/** The link by which kubelet turns a volume over to a new version, the versions' directories, and links into it. */
const DATA = "..data";
const VERSION = /^\.\.\d{4}_\d\d_\d\d_/;

/**
 * A volume of kubelet's has a new version: what the old ones had goes, as on the node. The protocol has no call that
 * removes anything. Whoever has a file of theirs open keeps it.
 * Source: kubelet pkg/volume/util/atomic_writer.go.
 */
function dropOldVersions(volume: string, base: string, current: string): void {
  const names = readdirSync(volume);
  const dangling = names.filter((name) => !name.startsWith("..") && leadsNowhere(volume, name));
  const old = names.filter((name) => VERSION.test(name) && name !== current);
  if (dangling.length === 0 && old.length === 0) return;
  // Moved out of the container's sight first, so that nothing in it can be turned into a way out while it is removed.
  const bin = mkdtempSync(`${base}/.removed-`);
  try {
    for (const name of [...dangling, ...old]) renameSync(`${volume}/${name}`, `${bin}/${name}`);
  } finally {
    rmSync(bin, { recursive: true, force: true });
  }
}

/** A link into `..data` whose first part is not there. */
function leadsNowhere(volume: string, name: string): boolean {
  const target = `${DATA}/${name}`;
  return (
    linkTarget(`${volume}/${name}`) === target &&
    lstatSync(`${volume}/${target}`, { throwIfNoEntry: false }) === undefined
  );
}

/** Where a link leads, undefined when there is none. */
function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined; // nothing there, or something else
  }
}

function writePiece(path: string, request: CopyFileRequest): void {
  const offset = Number(request.offset);
  const end = offset + request.data.length;
  const size = Number(request.fileSize);
  if (offset < 0 || end > size) {
    throw new Fault("invalid_argument", `"${request.path}": bytes ${offset} to ${end} are not in a file of ${size}`);
  }
  const fd = openPiece(`${path}.tmp`, offset);
  try {
    for (let done = 0; done < request.data.length; ) {
      done += writeSync(fd, request.data, done, request.data.length - done, offset + done);
    }
    if (end < size) return;
    // A first piece that is also the last has made the file, which is as long as what was written.
    if (offset > 0) ftruncateSync(fd, size);
    fchownSync(fd, request.uid, request.gid);
    fchmodSync(fd, request.fileMode & 0o7777);
  } finally {
    closeSync(fd);
  }
  renameSync(`${path}.tmp`, path);
}

function openPiece(path: string, offset: number): number {
  const { O_WRONLY, O_CREAT, O_NOFOLLOW, O_EXCL } = constants;
  if (offset > 0) return openSync(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0o600);
  try {
    return openSync(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_EXCL, 0o600);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "EEXIST") throw e;
  }
  // What an earlier attempt left; it starts anew.
  rmSync(path, { force: true, recursive: true });
  return openSync(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_EXCL, 0o600);
}

function confinementFault(e: unknown, path: string): unknown {
  switch ((e as NodeJS.ErrnoException).code) {
    case "ELOOP":
      return new Fault(
        "invalid_argument",
        `"${path}" leads through a symbolic link, which is refused`,
        {},
        { cause: e },
      );
    case "EXDEV":
      return new Fault("invalid_argument", `"${path}" leads out of the shared directory`, {}, { cause: e });
    case "ENOTDIR":
      return new Fault("invalid_argument", `"${path}": a parent is not a directory`, {}, { cause: e });
    default:
      return e;
  }
}

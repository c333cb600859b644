import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
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
  const path = posix.normalize(request.path);
  if (!path.startsWith(`${base}/`)) {
    throw new Fault("invalid_argument", `path "${request.path}" is not below ${base}`);
  }
  const relative = path.slice(base.length + 1).replace(/\/$/, "");
  const root = openSync(base, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const kind = request.fileMode & S_IFMT;
    if (kind === S_IFDIR) makeDirectory(root, relative, request);
    else if (kind === S_IFLNK) inParent(root, relative, request, (at) => makeLink(at, base, request));
    else if (kind === S_IFREG || kind === 0) inParent(root, relative, request, (at) => writePiece(at, request));
    else
      throw new Fault(
        "invalid_argument",
        `"${request.path}": file mode ${request.fileMode.toString(8)} is no file, directory or link`,
      );
  } catch (e) {
    throw confinementFault(e, request.path);
  } finally {
    closeSync(root);
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

/** @param work gets a path that the kernel resolves relative to the parent's descriptor */
function inParent(root: number, relative: string, request: CopyFileRequest, work: (path: string) => void): void {
  const parent = makeDirectoryBelow(root, posix.dirname(relative), request.dirMode & 0o7777 || 0o750);
  try {
    work(`/proc/self/fd/${parent}/${posix.basename(relative)}`);
  } finally {
    closeSync(parent);
  }
}

function makeLink(path: string, base: string, request: CopyFileRequest): void {
  rmSync(`${path}.tmp`, { force: true });
  symlinkSync(Buffer.from(request.data), `${path}.tmp`);
  lchownSync(`${path}.tmp`, request.uid, request.gid);
  renameSync(`${path}.tmp`, path);
  if (posix.basename(path) === DATA) dropOldVersions(posix.dirname(path), base, String(Buffer.from(request.data)));
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
  try {
    const target = readlinkSync(`${volume}/${name}`);
    return target === `${DATA}/${name}` && lstatSync(`${volume}/${target}`, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false; // no link
  }
}

function writePiece(path: string, request: CopyFileRequest): void {
  const { O_WRONLY, O_CREAT, O_NOFOLLOW, O_EXCL } = constants;
  const offset = Number(request.offset);
  const end = offset + request.data.length;
  const size = Number(request.fileSize);
  if (offset < 0 || end > size) {
    throw new Fault("invalid_argument", `"${request.path}": bytes ${offset} to ${end} are not in a file of ${size}`);
  }
  if (offset === 0) rmSync(`${path}.tmp`, { force: true, recursive: true });
  const fd = openSync(`${path}.tmp`, O_WRONLY | O_CREAT | O_NOFOLLOW | (offset === 0 ? O_EXCL : 0), 0o600);
  try {
    for (let done = 0; done < request.data.length; ) {
      done += writeSync(fd, request.data, done, request.data.length - done, offset + done);
    }
    if (end < size) return;
    ftruncateSync(fd, size);
  } finally {
    closeSync(fd);
  }
  chownSync(`${path}.tmp`, request.uid, request.gid);
  chmodSync(`${path}.tmp`, request.fileMode & 0o7777);
  renameSync(`${path}.tmp`, path);
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

import {
  closeSync,
  constants,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmSync,
  type Stats,
  symlinkSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { Fault } from "../../base/fault.ts";
import { libc } from "../system/libc.ts";
import { makeOpaque, setFileAttributes, setNamedAttributes } from "./entry-attributes.ts";
import { cPathIn, makeInRoot, openInRoot, pathIn } from "./in-root.ts";
import { writeContent } from "./sparse-content.ts";
import { printable, type TarEntry, type TarReader } from "./tar-reader.ts";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const S_IFIFO = 0o010000;

/**
 * Unpacks one layer into a directory of its own, as overlay wants its lower directories: a removed file is a character
 * device 0:0, a directory that replaces a lower one has trusted.overlay.opaque. Nothing is ever written outside.
 * Source: OCI image specification, layer.md; Linux overlayfs.rst
 */
export class LayerWriter implements Disposable {
  readonly #root: number;
  /** Directories that the layer has no entry for: they should look as in the layers below. */
  readonly implicit = new Set<string>();
  readonly #times: { readonly path: string; readonly mtime: number }[] = [];
  #parent: { readonly path: string; readonly fd: number } | undefined;

  /** @param directory exists and is empty */
  constructor(directory: string) {
    this.#root = openSync(directory, "r");
    this.implicit.add("");
  }

  [Symbol.dispose](): void {
    this.#forgetParent();
    closeSync(this.#root);
  }

  /** Takes one entry, its data from the reader. @throws Fault invalid_argument for an entry that cannot be; Error ENOSPC */
  async write(entry: TarEntry, data: TarReader): Promise<void> {
    const path = clean(entry.name);
    if (path === "") {
      if (entry.kind !== "directory") throw wrong(entry, "is the root and no directory");
      setNamedAttributes(this.#root, ".", entry);
      this.implicit.delete("");
      this.#times.push({ path, mtime: entry.mtime });
      return;
    }
    const slash = path.lastIndexOf("/");
    const name = path.slice(slash + 1);
    const directory = this.#openParent(slash < 0 ? "" : path.slice(0, slash));
    if (name.startsWith(WHITEOUT)) {
      this.#whiteout(directory, name, entry);
      return;
    }
    switch (entry.kind) {
      case "directory":
        this.#directory(directory, name, path, entry);
        break;
      case "file":
        await this.#file(directory, name, entry, data);
        break;
      case "link":
        this.#link(directory, name, entry);
        break;
      default:
        this.#special(directory, name, entry);
    }
  }

  /** Sets what the entries in a directory would have changed. */
  finish(): void {
    this.#forgetParent();
    for (const { path, mtime } of this.#times.reverse()) {
      try {
        const fd = openInRoot(this.#root, path);
        lutimesSync(pathIn(fd, "."), mtime, mtime);
        closeSync(fd);
      } catch (e) {
        // A later entry replaced it by something that is no directory.
        if (!/^(ENOENT|ENOTDIR|ELOOP)$/.test((e as NodeJS.ErrnoException).code ?? "")) throw e;
      }
    }
  }

  /** Entries of a directory follow each other: the last one's parent stays open. */
  #openParent(path: string): number {
    if (this.#parent?.path === path) return this.#parent.fd;
    this.#forgetParent();
    const fd = makeInRoot(this.#root, path, (made) => this.implicit.add(made));
    this.#parent = { path, fd };
    return fd;
  }

  #forgetParent(): void {
    if (this.#parent !== undefined) closeSync(this.#parent.fd);
    this.#parent = undefined;
  }

  #whiteout(directory: number, name: string, entry: TarEntry): void {
    if (name === OPAQUE) {
      makeOpaque(directory, ".");
      return;
    }
    if (name.startsWith(".wh..wh.")) return; // what aufs kept for itself
    const removed = name.slice(WHITEOUT.length);
    if (removed === "" || removed === "." || removed === "..") throw wrong(entry, "removes nothing that can be");
    const there = statOrNothing(directory, removed);
    // The layer's own entry replaces the lower one; a directory must not show what the lower one had.
    if (there?.isDirectory()) makeOpaque(directory, removed);
    else if (there === undefined) makeNode(directory, removed, S_IFCHR, 0);
  }

  #directory(directory: number, name: string, path: string, entry: TarEntry): void {
    const there = statOrNothing(directory, name);
    const wasRemoved = there?.isCharacterDevice() === true && there.rdev === 0;
    if (there !== undefined && !there.isDirectory()) this.#remove(directory, name);
    if (there === undefined || !there.isDirectory()) mkdirSync(pathIn(directory, name), { mode: 0o700 });
    if (wasRemoved) makeOpaque(directory, name);
    setNamedAttributes(directory, name, entry);
    this.implicit.delete(path);
    this.#times.push({ path, mtime: entry.mtime });
  }

  async #file(directory: number, name: string, entry: TarEntry, data: TarReader): Promise<void> {
    const open = (): number => openSync(pathIn(directory, name), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
    const fd = this.#replacing(directory, name, open);
    try {
      if (entry.extents === undefined && entry.size <= SMALL) {
        for (let piece = await data.read(); piece !== undefined; piece = await data.read()) writeWhole(fd, piece);
      } else await writeContent(fd, entry, data);
      setFileAttributes(fd, entry);
    } finally {
      closeSync(fd);
    }
  }

  #link(directory: number, name: string, entry: TarEntry): void {
    const target = clean(entry.linkName);
    const slash = target.lastIndexOf("/");
    const last = target.slice(slash + 1);
    let from: number;
    try {
      from = openInRoot(this.#root, slash < 0 ? "" : target.slice(0, slash));
    } catch (cause) {
      throw noTarget(entry, cause);
    }
    try {
      if (statOrNothing(from, last) === undefined) throw noTarget(entry);
      this.#replacing(directory, name, () => linkSync(pathIn(from, last), pathIn(directory, name)));
    } finally {
      closeSync(from);
    }
  }

  #special(directory: number, name: string, entry: TarEntry): void {
    this.#replacing(directory, name, () => {
      if (entry.kind === "symlink") symlinkSync(Buffer.from(entry.linkName, "latin1"), pathIn(directory, name));
      else if (entry.kind === "fifo") makeNode(directory, name, S_IFIFO, 0);
      else makeNode(directory, name, entry.kind === "block" ? S_IFBLK : S_IFCHR, deviceNumber(entry));
    });
    setNamedAttributes(directory, name, entry);
  }

  /** A later entry of the same name wins. */
  #replacing<T>(directory: number, name: string, make: () => T): T {
    try {
      return make();
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== "EEXIST") throw e;
    }
    this.#remove(directory, name);
    return make();
  }

  #remove(directory: number, name: string): void {
    const path = pathIn(directory, name);
    if (statOrNothing(directory, name)?.isDirectory()) rmSync(path, { recursive: true });
    else unlinkSync(path);
  }
}

/** Written at once; the loop is not held up longer by more. */
const SMALL = 64 * 1024;

function writeWhole(fd: number, piece: Buffer): void {
  for (let at = 0; at < piece.length; ) at += writeSync(fd, piece, at);
}

/** A path below the layer's root, without leading `/` and `./`. @throws Fault invalid_argument when it leads out */
function clean(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..") || name.includes("\0"))
    throw new Fault("invalid_argument", `the layer has an entry "${printable(name)}", whose path leads out of it`);
  return parts.join("/");
}

function statOrNothing(directory: number, name: string): Stats | undefined {
  return lstatSync(pathIn(directory, name), { throwIfNoEntry: false });
}

function makeNode(directory: number, name: string, type: number, device: number): void {
  libc(
    "int mknod(const void *path, unsigned int mode, unsigned long device)",
    cPathIn(directory, name),
    type | 0o600,
    device,
  );
}

/** Source: glibc gnu_dev_makedev, for the numbers that Linux has. */
function deviceNumber({ major, minor }: TarEntry): number {
  return (minor & 0xff) + (major & 0xfff) * 256 + (minor & 0xfff00) * 4096;
}

function noTarget(entry: TarEntry, cause?: unknown): Fault {
  return wrong(entry, `is a hard link to "${printable(entry.linkName)}", which the layer does not have`, cause);
}

function wrong(entry: TarEntry, what: string, cause?: unknown): Fault {
  return new Fault("invalid_argument", `the layer's entry "${printable(entry.name)}" ${what}`, {}, { cause });
}

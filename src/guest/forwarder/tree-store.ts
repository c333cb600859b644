import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { rm } from "node:fs/promises";
import type { Writable } from "node:stream";
import { Fault } from "../../base/fault.ts";
import type { Children } from "../system/children.ts";
import { bytesPassed } from "../system/garbage.ts";
import type { TreeReader } from "./tree-reader.ts";

export interface StoredTree {
  readonly bytes: number;
  readonly sha256: string;
  readonly skipped: boolean;
}

export interface TreeStoreDeps {
  readonly children: Children;
  /** Directory of a tree. @throws Fault invalid_argument for an id that cannot be one */
  readonly directory: (treeId: string) => string;
  /** "12 MiB free of 9876 MiB" of the disk that holds them. */
  readonly diskText: () => string;
}

/** Root filesystem trees that the node sent. Each is unpacked once; what is not complete never has its final name. */
export class TreeStore {
  readonly #deps: TreeStoreDeps;
  readonly #running = new Map<string, Promise<unknown>>();

  constructor(deps: TreeStoreDeps) {
    this.#deps = deps;
  }

  /**
   * Takes a tree from its connection; one that is here or coming already is skipped.
   * @throws Fault invalid_argument, aborted (checksum), resource_exhausted (disk full), internal (tar), unavailable (connection)
   */
  async receive(reader: TreeReader): Promise<StoredTree> {
    const { treeId } = await reader.header();
    const directory = this.#deps.directory(treeId);
    for (let other = this.#running.get(treeId); other !== undefined; other = this.#running.get(treeId)) {
      await other.catch(() => undefined); // told to its own sender; then this one takes its turn
    }
    if (existsSync(directory)) return { bytes: 0, sha256: "", skipped: true };
    const unpacking = this.#unpack(reader, directory);
    this.#running.set(treeId, unpacking);
    try {
      return await unpacking;
    } finally {
      this.#running.delete(treeId);
    }
  }

  async #unpack(reader: TreeReader, directory: string): Promise<StoredTree> {
    const temporary = `${directory}.tmp`;
    await rm(temporary, { recursive: true, force: true });
    try {
      mkdirSync(temporary, { recursive: true });
      const stored = await this.#untar(reader, temporary);
      const expected = await reader.checksum();
      if (stored.sha256 !== expected) {
        throw new Fault(
          "aborted",
          `the tree's checksum is ${stored.sha256} here and ${expected} at its sender: it was damaged on the way`,
        );
      }
      renameSync(temporary, directory);
      return stored;
    } catch (e) {
      await rm(temporary, { recursive: true, force: true });
      throw (e as NodeJS.ErrnoException).code === "ENOSPC" ? this.#diskFull(e) : e;
    }
  }

  #diskFull(cause?: unknown): Fault {
    return new Fault(
      "resource_exhausted",
      `guest disk full: ${this.#deps.diskText()}; use smaller images or a larger disk for pod VMs`,
      {},
      { cause },
    );
  }

  async #untar(reader: TreeReader, directory: string): Promise<StoredTree> {
    const tar = this.#deps.children.spawn(
      "tar",
      [
        "-x",
        "-p",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--sparse",
        "--numeric-owner",
        "--same-owner",
        "-C",
        directory,
        "-f",
        "-",
      ],
      ["pipe", "ignore", "pipe"],
      { env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" } },
    );
    const stdin = tar.stdin as Writable;
    stdin.on("error", () => undefined); // EPIPE: tar ended, and says why below
    let said = "";
    tar.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(0, 4000);
    });
    const ended = new Promise<number>((resolve) => {
      tar.once("error", () => resolve(-1));
      tar.once("close", (code) => resolve(code ?? -1));
    });
    const early = ended.then(() => undefined);
    const hash = createHash("sha256");
    let bytes = 0;
    try {
      for await (const piece of reader.content()) {
        hash.update(piece);
        bytes += piece.length;
        bytesPassed(piece.length);
        if (!stdin.write(piece)) await Promise.race([once(stdin, "drain").catch(() => undefined), early]);
        if (tar.exitCode !== null) break;
      }
    } catch (e) {
      tar.kill("SIGKILL");
      await ended;
      throw e;
    }
    stdin.end();
    const exitCode = await ended;
    if (exitCode !== 0) throw this.#tarFault(exitCode, said);
    return { bytes, sha256: hash.digest("hex"), skipped: false };
  }

  #tarFault(exitCode: number, said: string): Fault {
    const first = said.split("\n").find((line) => !/Exiting with failure|Error is not recoverable/.test(line)) ?? "";
    if (/No space left on device|Wrote only \d+ of/.test(said)) return this.#diskFull();
    return new Fault("internal", `tar in the guest ended with ${exitCode}: ${first}`);
  }
}

import { type FileHandle, lstat, open, opendir, readlink, realpath } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { CopyFileRequest } from "../../gen/agent/agent.ts";
import type { Agent, MountCopy } from "../agent/index.ts";

/** Source: kata 4.1 copyFile: chunks of 1 MiB, parents made with 0750. */
const CHUNK_BYTES = 1_024 * 1_024;
const PARENT_MODE = 0o040750;
const MAX_ENTRIES = 20_000;
/** Requests on their way at a time: enough to fill packs. */
export const PARALLEL_FILES = 256;

/** A tree and where it goes; the rest names it in messages. */
export interface TreeCopy extends Omit<MountCopy, "role"> {
  /** Where this process reads it; default: `source`. */
  readonly at?: string;
}

export interface CopyLimits {
  readonly maxMiB: number;
}

interface Entry {
  readonly kind: "file" | "directory" | "symlink";
  readonly path: string;
  readonly guestPath: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly bytes: number;
}

/**
 * Copies the source of a bind mount into the guest, once. The whole tree is looked at before the first byte goes out.
 * @throws Fault failed_precondition naming the mount, when it is too large or holds what cannot be copied
 * Source: reference §2.6.
 */
export async function copyTree(
  agent: Pick<Agent, "copyFile">,
  copy: TreeCopy,
  limits: CopyLimits,
  call: Call,
): Promise<void> {
  const entries = await walk(copy, limits);
  const directories = entries.filter((e) => e.kind === "directory");
  for (const entry of directories) await agent.copyFile(copyRequest(entry), call);
  const rest = entries.filter((e) => e.kind !== "directory").values();
  const worker = async (): Promise<void> => {
    for (const entry of rest) await copyEntry(agent, entry, call);
  };
  await Promise.all(Array.from({ length: PARALLEL_FILES }, worker));
}

/** Only looks. @throws as copyTree does, for what can be known before there is a VM */
export async function measureCopy(copy: TreeCopy, limits: CopyLimits): Promise<void> {
  await walk(copy, limits);
}

async function copyEntry(agent: Pick<Agent, "copyFile">, entry: Entry, call: Call): Promise<void> {
  if (entry.kind === "symlink") {
    await agent.copyFile({ ...copyRequest(entry), data: Buffer.from(await readlink(entry.path)) }, call);
    return;
  }
  await using file = await open(entry.path, "r");
  await copyFile(agent, file, entry, call);
}

async function copyFile(agent: Pick<Agent, "copyFile">, file: FileHandle, entry: Entry, call: Call): Promise<void> {
  // The size may have changed since the walk; what counts is what is there now, and every chunk names the total.
  const total = (await file.stat()).size;
  let offset = 0;
  do {
    const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, total - offset));
    const { bytesRead } = buffer.length === 0 ? { bytesRead: 0 } : await file.read(buffer, 0, buffer.length, offset);
    if (bytesRead === 0 && offset < total) {
      throw new Fault("aborted", `${entry.path} shrank while it was copied into the guest; start the container again`);
    }
    const data = buffer.subarray(0, bytesRead);
    await agent.copyFile({ ...copyRequest(entry), fileSize: BigInt(total), offset: BigInt(offset), data }, call);
    offset += bytesRead;
  } while (offset < total);
}

/** A request without content, for a directory, a link or the first piece of a file. */
export function copyRequest(entry: Pick<Entry, "guestPath" | "mode" | "uid" | "gid">): CopyFileRequest {
  return CopyFileRequest.fromPartial({
    path: entry.guestPath,
    fileSize: 0n,
    fileMode: entry.mode,
    dirMode: PARENT_MODE,
    uid: entry.uid,
    gid: entry.gid,
    offset: 0n,
  });
}

async function walk(copy: TreeCopy, limits: CopyLimits): Promise<readonly Entry[]> {
  const found: Entry[] = [];
  let bytes = 0;
  const refuse = (why: string): never => {
    throw new Fault(
      "failed_precondition",
      `${copy.field}.source = "${copy.source}" (at ${copy.destination}) cannot be copied into the VM: ${why}`,
      {
        field: copy.field,
      },
    );
  };
  const visit = async (path: string, guestPath: string): Promise<void> => {
    const s = await lstat(path);
    const kind = s.isFile() ? "file" : s.isDirectory() ? "directory" : s.isSymbolicLink() ? "symlink" : undefined;
    if (kind === undefined)
      return refuse(`${path} is neither file, directory nor symbolic link; remove it or the mount`);
    found.push({ kind, path, guestPath, mode: s.mode, uid: s.uid, gid: s.gid, bytes: s.size });
    if (kind === "file") bytes += s.size;
    if (bytes > limits.maxMiB * 1_024 * 1_024) {
      return refuse(
        `it holds more than ${limits.maxMiB} MiB; put the data into the image, use an emptyDir, or raise shim.maxCopyMiB`,
      );
    }
    if (found.length > MAX_ENTRIES)
      return refuse(`it holds more than ${MAX_ENTRIES} files; put them into the image or use an emptyDir`);
    if (kind === "directory") {
      for await (const child of await opendir(path)) await visit(join(path, child.name), `${guestPath}/${child.name}`);
    }
  };
  const at = copy.at ?? copy.source;
  // A bind mount follows a link that is its source itself.
  await visit((await lstat(at)).isSymbolicLink() ? await realpath(at) : at, copy.guestPath);
  return found;
}

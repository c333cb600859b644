import { lstat, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { CopyFileRequest } from "../../gen/agent/agent.ts";
import type { Agent } from "../agent/index.ts";
import { type CopyLimits, copyRequest, copyTree, PARALLEL_FILES, type TreeCopy } from "./copy-tree.ts";

/** What the guest has of a followed volume. */
export interface VolumeVersion {
  /** Name of the directory that `..data` leads to. */
  readonly version: string;
  /** Names that the volume shows; undefined when they are not known any more (next daemon). */
  readonly names: ReadonlySet<string> | undefined;
}

/** kubelet may change a volume again while it is read; a few times in a row, not for ever. */
const ATTEMPTS = 8;
const DATA = "..data";

/**
 * Brings a volume of kubelet's into the guest, or what has changed of it. kubelet writes a new directory beside the old
 * one and turns `..data` over to it; here the same is done in the guest, in this order: the new directory, `..data`,
 * links for new names. With our agent nobody in the guest sees a mix, and what the new version lacks goes with the old
 * directory; a stock agent replaces `..data` by two steps and has no call that removes anything: there the names of
 * removed keys stay as links that lead nowhere.
 * @param known what the guest has; undefined for the first time
 * @returns undefined when the source is none of these volumes (no `..data`)
 * @throws Fault as copyTree does
 * Source: kubelet pkg/volume/util/atomic_writer.go.
 */
export async function syncVolume(
  agent: Pick<Agent, "copyFile">,
  volume: TreeCopy,
  limits: CopyLimits,
  known: VolumeVersion | undefined,
  call: Call,
): Promise<VolumeVersion | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    const version = await dataVersion(volume.at ?? volume.source);
    if (version === undefined || version === known?.version) return version === undefined ? undefined : known;
    try {
      return await copyVersion(agent, volume, limits, version, known, call);
    } catch (error) {
      // The version was replaced while it was read.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT" || attempt === ATTEMPTS) throw error;
    }
  }
}

/** Where `..data` leads, undefined when there is none. @throws Fault when it leads out of the volume */
async function dataVersion(source: string): Promise<string | undefined> {
  let version: string;
  try {
    version = await readlink(join(source, DATA));
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "EINVAL" || code === "ENOTDIR") return undefined;
    throw e;
  }
  if (version === "" || version === ".." || version.includes("/")) {
    throw new Fault("failed_precondition", `${source}/${DATA} leads to "${version}", which is not in the volume`);
  }
  return version;
}

async function copyVersion(
  agent: Pick<Agent, "copyFile">,
  volume: TreeCopy,
  limits: CopyLimits,
  version: string,
  known: VolumeVersion | undefined,
  call: Call,
): Promise<VolumeVersion> {
  const { source, at = source, guestPath } = volume;
  const send = async (name: string, data: string | undefined): Promise<void> => {
    const request = await linkRequest(join(at, name), name === "" ? guestPath : `${guestPath}/${name}`);
    await agent.copyFile(data === undefined ? request : { ...request, data: Buffer.from(data) }, call);
  };
  if (known === undefined) await send("", undefined);
  await copyTree(
    agent,
    { ...volume, source: join(source, version), at: join(at, version), guestPath: `${guestPath}/${version}` },
    limits,
    call,
  );
  const names = (await readdir(at)).filter((name) => !name.startsWith(".."));
  await send(DATA, version);
  const fresh = names.filter((name) => known?.names?.has(name) !== true).values();
  const worker = async (): Promise<void> => {
    for (const name of fresh) await sendName(agent, volume, limits, name, send, call);
  };
  await Promise.all(Array.from({ length: PARALLEL_FILES }, worker));
  return { version, names: new Set(names) };
}

/** What users see: links into `..data`. Anything else that lies there is copied as it is. */
async function sendName(
  agent: Pick<Agent, "copyFile">,
  volume: TreeCopy,
  limits: CopyLimits,
  name: string,
  send: (name: string, data: string) => Promise<void>,
  call: Call,
): Promise<void> {
  const source = join(volume.source, name);
  const path = join(volume.at ?? volume.source, name);
  try {
    if ((await lstat(path)).isSymbolicLink()) await send(name, await readlink(path));
    else await copyTree(agent, { ...volume, source, at: path, guestPath: `${volume.guestPath}/${name}` }, limits, call);
  } catch (e) {
    // Removed meanwhile: a later version, of which the watch tells.
    if ((e as NodeJS.ErrnoException).code !== "ENOENT") throw e;
  }
}

async function linkRequest(path: string, guestPath: string): Promise<CopyFileRequest> {
  const { mode, uid, gid } = await lstat(path);
  return copyRequest({ guestPath, mode, uid, gid });
}

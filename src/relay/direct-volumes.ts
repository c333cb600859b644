import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "../base/log.ts";

/** A cloud disk that a CSI driver has prepared for a pod of this node. */
export interface DirectVolume {
  /** Where the kubelet would have mounted it: the source of the container's mount. */
  readonly source: string;
  readonly diskId: string;
  readonly fsType: string;
  readonly encryptType?: string;
  readonly keyId?: string;
  /** Group that the volume's files are to belong to. */
  readonly fsGroup?: number;
}

/** Part of the path of every CSI volume. Source: wire contract §3.9. */
export const CSI_MARK = "/volumes/kubernetes.io~csi/";

/**
 * The volumes of one pod, in the order of their directories' names, by which they are numbered. A description that cannot
 * be read is left out and logged: it may be of another pod.
 * @param podUid "" when it is not known: then all of this node
 * Source: wire contract §3.9 (`mountInfo.json`, names are base64url of the path)
 */
export async function directVolumes(dir: string, podUid: string, log: Logger): Promise<readonly DirectVolume[]> {
  const found: DirectVolume[] = [];
  for (const name of await names(dir)) {
    const source = Buffer.from(name, "base64url").toString("utf8");
    if (!source.includes(CSI_MARK) || (podUid !== "" && !source.includes(`/pods/${podUid}/`))) continue;
    try {
      found.push(read(source, await readFile(join(dir, name, "mountInfo.json"), "utf8")));
    } catch (err) {
      log.warn({ volume: source, err }, "description of a CSI volume cannot be read");
    }
  }
  return found;
}

/** Whether a CSI driver has left a description for a mount's source. */
export async function hasDirectVolume(dir: string, source: string): Promise<boolean> {
  const wanted = Buffer.from(source).toString("base64url");
  return (await names(dir)).some((name) => name.replace(/=+$/, "") === wanted);
}

async function names(dir: string): Promise<readonly string[]> {
  try {
    return (await readdir(dir)).sort();
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return []; // no such driver on this node
    throw e;
  }
}

function read(source: string, text: string): DirectVolume {
  const {
    device,
    fstype,
    metadata = {},
  } = JSON.parse(text) as {
    device?: string;
    fstype?: string;
    metadata?: Readonly<Record<string, string>>;
  };
  const diskId = metadata["cloud-volume-path"] ?? device;
  if (typeof diskId !== "string" || diskId === "") throw new Error("it names no disk");
  return {
    source,
    diskId,
    fsType: fstype || "ext4",
    ...(metadata["encrypt-type"] === undefined ? {} : { encryptType: metadata["encrypt-type"] }),
    ...(/^\d+$/.test(metadata.fsGroup ?? "") ? { fsGroup: Number(metadata.fsGroup) } : {}),
    ...(metadata["kbs-key-id"] === undefined ? {} : { keyId: metadata["kbs-key-id"] }),
  };
}

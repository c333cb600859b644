import type { Logger } from "../base/log.ts";
import { type ContainerRequest, readContainerRequest, setAnnotations } from "./container-request.ts";
import { CSI_MARK, directVolumes, hasDirectVolume } from "./direct-volumes.ts";

export interface ContainerEdits {
  /** Absent: no volumes are looked for. */
  readonly directVolumesDir?: string | undefined;
  /** "" when it is not known; the request may say it. */
  readonly podUid: string;
}

const TARGET_PATH = "io.confidentialcontainers.org.peerpodvolumes.target_path";
const CLOUD_VOLUMES = "io.confidentialcontainers.org.cloud_volumes";
const GPUS = "io.katacontainers.config.hypervisor.default_gpus";
const POD_UID = "io.kubernetes.cri.sandbox-uid";
const CDI_KEY = "cdi.k8s.io/peer-pods";
const CDI_GPUS = "nvidia.com/gpu=all";

/**
 * What a worker adds to a CreateContainer on its way to the forwarder: which sources CSI drivers will mount, GPUs, and
 * cloud disks. A request that needs none of it comes back as the very same bytes.
 * Differences from the stock worker: "0" asks for no GPU, and a list never begins with a comma.
 * @throws MalformedMessage
 * Source: wire contract §3.9
 */
export async function editContainer(payload: Buffer, edits: ContainerEdits, log: Logger): Promise<Buffer> {
  const request = readContainerRequest(payload);
  const added = new Map<string, string>();
  if (wantsGpus(request)) added.set(CDI_KEY, CDI_GPUS);
  if (edits.directVolumesDir !== undefined && request.mounts.some((m) => m.source.includes(CSI_MARK))) {
    const podUid = request.annotations.get(POD_UID) ?? edits.podUid;
    await addTargetPaths(request, edits.directVolumesDir, added);
    await addCloudVolumes(request, edits.directVolumesDir, podUid, added, log);
  }
  return added.size === 0 ? payload : setAnnotations(payload, added);
}

function wantsGpus({ annotations }: ContainerRequest): boolean {
  const said = annotations.get(GPUS) ?? "";
  return said !== "" && said !== "0";
}

async function addTargetPaths(request: ContainerRequest, dir: string, added: Map<string, string>): Promise<void> {
  const sources: string[] = [];
  for (const { source } of request.mounts)
    if (source.includes(CSI_MARK) && (await hasDirectVolume(dir, source))) sources.push(source);
  if (sources.length === 0) return;
  const before = request.annotations.get(TARGET_PATH) ?? "";
  added.set(TARGET_PATH, [...(before === "" ? [] : [before]), ...sources].join(","));
}

/** Numbered over all volumes of the pod, whether or not this container mounts them: the number is the disk's slot. */
async function addCloudVolumes(
  request: ContainerRequest,
  dir: string,
  podUid: string,
  added: Map<string, string>,
  log: Logger,
): Promise<void> {
  const table: Record<string, object> = {};
  for (const [index, volume] of (await directVolumes(dir, podUid, log)).entries()) {
    const mount = request.mounts.find((m) => m.source === volume.source);
    if (mount === undefined) continue;
    const { fsType, diskId, encryptType, keyId } = volume;
    table[`vol-${index}`] = {
      ...{ mount_point: mount.destination, fs_type: fsType, lun: String(index), disk_id: diskId },
      ...(encryptType === undefined ? {} : { encrypt_type: encryptType }),
      ...(keyId === undefined ? {} : { key_id: keyId }),
    };
  }
  if (Object.keys(table).length > 0) added.set(CLOUD_VOLUMES, JSON.stringify(table));
}

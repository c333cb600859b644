import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { type DirectVolume, directVolumes } from "../../relay/index.ts";

/**
 * Volumes of the cloud that a pod's VM is to have, in the order in which they are attached: what a CSI driver has left for
 * the pod instead of mounting it on the node. All of them are there before kubelet asks for the pod.
 * @param podUid "" for what is no pod of kubelet's: it has none
 * @throws Fault failed_precondition for one that this image cannot open
 */
export async function cloudVolumes(dir: string, podUid: string, log: Logger): Promise<readonly DirectVolume[]> {
  if (podUid === "") return [];
  const found = await directVolumes(dir, podUid, log);
  const encrypted = found.find((volume) => volume.encryptType !== undefined);
  if (encrypted === undefined) return found;
  const message = `volume ${encrypted.diskId} is to be opened with a key of a key broker (encrypt-type "${encrypted.encryptType}"), which the reference image cannot: use the stock image, or a volume without`;
  throw new Fault("failed_precondition", message);
}

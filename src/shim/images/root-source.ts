import { Fault } from "../../base/fault.ts";
import { imageOfMounts } from "./virtual-volume.ts";

/** Where a container's root file system comes from. */
export type RootSource =
  /** Sent by the node as its snapshotter mounts it. `allowed`: by explicit permission, in a pod whose node is not trusted. */
  | { readonly kind: "node"; readonly allowed: boolean }
  /** Pulled in the guest; "pause" is part of it. */
  | { readonly kind: "guest"; readonly image: string };

export interface RootChoice {
  /** Setting of the runtime class or the pod; absent: none. */
  readonly guestPull?: boolean | undefined;
  /** The runtime class is a confidential one. */
  readonly confidential?: boolean | undefined;
  /** The runtime class permits the node's root file systems in confidential pods. */
  readonly allowNodeRootfs?: boolean | undefined;
  /** Of the node daemon, for pods without a setting. */
  readonly preferred: "node" | "guest";
  readonly containerType: "pod_sandbox" | "pod_container" | "single_container";
  readonly annotations: Readonly<Record<string, string>>;
  readonly mounts: readonly { readonly type: string; readonly options: readonly string[] }[];
}

/** Where container managers say which image a container is of. Source: containerd CRI, CRI-O */
const IMAGE_NAMES = ["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"] as const;

/**
 * Decides where a root file system comes from: the snapshotter's word first, then the pod's or its runtime class's
 * setting, then confidential pods pull, then the node's setting.
 * @throws Fault failed_precondition when a confidential pod would get the node's without permission; invalid_argument
 * when it shall be pulled and nobody says which image
 */
export function rootSource(choice: RootChoice): RootSource {
  const { annotations, confidential = false } = choice;
  const asked = imageOfMounts(choice.mounts);
  const guest = asked !== undefined || (choice.guestPull ?? (confidential || choice.preferred === "guest"));
  if (!guest) {
    if (confidential && choice.allowNodeRootfs !== true) {
      throw new Fault(
        "failed_precondition",
        "a confidential pod pulls its images itself: experimental_force_guest_pull = false needs allow_node_rootfs = true in the file that ConfigPath of its runtime class names",
      );
    }
    return { kind: "node", allowed: confidential };
  }
  if (choice.containerType === "pod_sandbox") return { kind: "guest", image: "pause" };
  const image = IMAGE_NAMES.map((name) => annotations[name]).find((value) => value) ?? (asked || undefined);
  if (image !== undefined) return { kind: "guest", image };
  throw new Fault(
    "invalid_argument",
    `the image is to be pulled in the pod VM, and the container has no annotation ${IMAGE_NAMES[0]} that names it; with ctr or nerdctl add --annotation ${IMAGE_NAMES[0]}=<image>`,
  );
}

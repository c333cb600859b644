import { access } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { checkContainerId } from "../base/ids.ts";
import { CreateContainerRequest, Storage } from "../gen/agent/agent.ts";
import { TREE_STORAGE_DRIVER } from "../guestwire/index.ts";
import { delimited } from "../ttrpc/index.ts";
import type { TreeReceipt, TreeSpec } from "./relay.ts";

export interface StockRootfsDeps {
  /** Where this process finds what the shim mounted for a shared filesystem: `<container id>/rootfs`. */
  readonly dir: () => Promise<string>;
  readonly send: (tree: TreeSpec, call: Call) => Promise<TreeReceipt>;
}

/** CreateContainerRequest.storages. Source: proto/agent/agent.proto */
const STORAGES_FIELD = 5;
/** Where a shared filesystem would show them in the guest. Source: kata-containers src/runtime, kataGuestSharedDir. */
const GUEST_DIR = "/run/kata-containers/shared/containers/";

/**
 * Carries a container's root filesystem into our guest. A stock shim without guest pull believes that a filesystem is
 * shared: it mounts the root filesystem on the node, names the place where the guest would see it, and no storage. Our
 * guest gets the tree there instead. A request that brings its root filesystem as a storage comes back as it was.
 * @throws Fault failed_precondition when this process does not see what the shim mounted
 */
export async function bringRootfs(payload: Buffer, deps: StockRootfsDeps, call: Call): Promise<Buffer> {
  const { containerId, storages, OCI } = CreateContainerRequest.decode(payload);
  const place = OCI?.Root?.Path ?? "";
  const shared = place === `${GUEST_DIR}${containerId}/rootfs`;
  const brought = storages.some(
    (s) => s.mountPoint === place || (s.mountPoint !== "" && place.startsWith(`${s.mountPoint}/`)),
  );
  if (!shared || brought) return payload;
  const path = join(await deps.dir(), checkContainerId(containerId), "rootfs");
  await access(path).catch((cause: unknown) => {
    throw new Fault(
      "failed_precondition",
      `root filesystem of container ${containerId} is not at ${path}, where its shim mounts it: this shim needs guest pull (experimental_force_guest_pull), or an image that brings its own`,
      {},
      { cause },
    );
  });
  // Known by the container: what is below its mount belongs to nobody else, and a repeated request finds it there.
  const treeId = `stock-${containerId}`;
  await deps.send({ treeId, path }, call);
  const storage = Storage.fromPartial({
    driver: TREE_STORAGE_DRIVER,
    source: treeId,
    fstype: "overlay",
    mountPoint: place,
  });
  return Buffer.concat([payload, delimited(STORAGES_FIELD, Storage.encode(storage).finish())]);
}

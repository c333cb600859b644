import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { Storage } from "../../gen/agent/agent.ts";
import { TREE_STORAGE_DRIVER } from "../../guestwire/index.ts";
import type { Relay, TreeReceipt, TreeSpec } from "../../relay/index.ts";
import { statusToFault } from "../../ttrpc/index.ts";
import { guestRootfs } from "../agent/index.ts";
import type { Hypervisor } from "../hypervisor/index.ts";
import { guestRootStorage } from "../images/index.ts";
import type { ShimConfig } from "../shim-config.ts";
import type { PreparedContainer } from "./prepared-container.ts";
import { sendRootfs } from "./rootfs.ts";
import type { SandboxState } from "./sandbox-state.ts";

export interface RootStorageDeps {
  readonly relay: Relay;
  readonly hypervisor: Hypervisor;
  readonly config: ShimConfig;
  readonly mountDir: string;
  readonly sandboxId: SandboxId;
  readonly record: SandboxState;
  readonly log: Logger;
}

/** Has a container's root file system on its way: sent to the guest, or to be pulled there. @returns its storage */
export async function rootStorage(deps: RootStorageDeps, prepared: PreparedContainer, call: Call): Promise<Storage> {
  const { relay, hypervisor, config, sandboxId, record, log } = deps;
  const { request, root, spec } = prepared;
  const mountPoint = guestRootfs(request.id);
  if (root.kind === "node") {
    if (root.allowed)
      log.warn(
        { sandbox: sandboxId, container: request.id },
        "a confidential pod gets a root file system that its node made: its runtime class allows it",
      );
    const source = await sendTree(deps, prepared, call);
    const common = { driverOptions: [], fstype: "overlay", options: [], fsGroup: undefined, shared: false };
    return { driver: TREE_STORAGE_DRIVER, source, mountPoint, ...common };
  }
  return await guestRootStorage(
    {
      caller: relay.guest(sandboxId),
      config: config.images,
      containerd: record,
      pullSecrets: async (c) => await hypervisor.pullSecrets?.(sandboxId, c),
      log,
    },
    { containerId: request.id, image: root.image, mountPoint, annotations: spec.annotations ?? {} },
    call,
  );
}

/** @returns the tree's name in the guest */
async function sendTree(deps: RootStorageDeps, { request, spec }: PreparedContainer, call: Call): Promise<string> {
  const { relay, config, mountDir, sandboxId, log } = deps;
  const source = { mounts: request.rootfs, bundle: request.bundle, rootPath: spec.root.path };
  const send = async (tree: TreeSpec, c: Call): Promise<TreeReceipt> => {
    try {
      return await relay.sendTree(sandboxId, tree, withDeadline(config.sendTreeTimeoutMs, c));
    } catch (thrown) {
      const cause = statusToFault(thrown);
      const code = cause.code === "not_found" ? "internal" : cause.code;
      throw new Fault(code, `the root file system of container ${request.id} did not reach its pod VM`, cause.context, {
        cause,
      });
    }
  };
  const { treeId, receipt } = await sendRootfs({ mountDir, log }, source, send, call);
  const { bytes, skipped } = receipt;
  log.info({ container: request.id, tree: treeId, bytes, skipped }, "root file system is in the guest");
  return treeId;
}

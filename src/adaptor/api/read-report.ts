import { parseInstanceId, parseSandboxId } from "../../base/ids.ts";
import type { SyncNodeRequest, LiveSandbox as WireSandbox } from "../../gen/kataremote/podvm/v1/podvm.ts";
import { nodeCommonName } from "../../identity/index.ts";
import type { LiveSandbox, NodeReport } from "../podvm/index.ts";

/** A node's report in the service's words. @throws Fault invalid_argument */
export function readReport(r: SyncNodeRequest): NodeReport {
  return {
    nodeId: checkNodeId(r.nodeId),
    mark: { bootId: r.bootId, session: String(r.session), sequence: Number(r.sequence) },
    live: r.liveSandboxIds.map(parseSandboxId),
    details: r.live.map(readLive),
    pendingStops: r.pendingStops.map(({ sandboxId, reason, instanceId }) => ({
      ...{ id: parseSandboxId(sandboxId), reason: reason || "the node asked for it" },
      ...(instanceId === "" ? {} : { instanceId: parseInstanceId(instanceId) }),
    })),
    store: { epoch: r.storeEpoch, seq: Number(r.storeSeq) },
  };
}

/** @throws Fault invalid_argument when it could not be in a certificate */
export function checkNodeId(nodeId: string): string {
  nodeCommonName(nodeId);
  return nodeId;
}

function readLive(live: WireSandbox): LiveSandbox {
  const { namespace, name, uid } = live.pod ?? { namespace: "", name: "", uid: "" };
  const verifiedBy = live.verifiedBy === "console" ? "console" : "address";
  return {
    ...{ id: parseSandboxId(live.sandboxId), addresses: live.addresses, port: live.port, ready: live.ready },
    ...(live.instanceId === "" ? {} : { instanceId: parseInstanceId(live.instanceId) }),
    ...(live.guestKey === "" ? {} : { guestKey: { fingerprint: live.guestKey, verifiedBy } }),
    pod: { namespace, name: name || live.containerdId, uid },
    containerd: { namespace: live.containerdNamespace, id: live.containerdId },
  };
}

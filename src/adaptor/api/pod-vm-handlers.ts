import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { parseInstanceId, parseSandboxId } from "../../base/ids.ts";
import {
  type CreateVmRequest,
  type PodVmDefinition,
  StartVmEvent,
  StartVmEvent_Stage,
  VmEvent,
} from "../../gen/kataremote/podvm/v1/podvm.ts";
import type { Handlers, Peer } from "../../grpc/index.ts";
import { nodeIdOf } from "../../identity/index.ts";
import type { CreateVm, NodeCall, PodVmService, StartProgress } from "../podvm/index.ts";
import { checkNodeId, readReport } from "./read-report.ts";
import { readStock } from "./read-stock.ts";

interface HandlerDeps {
  readonly service: PodVmService;
  readonly version: { readonly version: string; readonly provider: string };
  /** Whether peers come over the network and must be nodes with a certificate. */
  readonly network: boolean;
  /** Ends streams when the door closes. */
  readonly closing: AbortSignal;
}

/** Translates the wire's words into PodVmService's; decides nothing but whether the words make sense. */
export function podVmHandlers(deps: HandlerDeps): Handlers<typeof PodVmDefinition> {
  const { service, version } = deps;
  const from = (call: Call, peer: Peer): NodeCall => nodeCall(deps, call, peer);
  return {
    version: async () => version,
    enrollNode: (r, call, peer) => service.enrollNode(checkNodeId(r.nodeId), r.csrPem, from(call, peer)),
    async createVm(request, call, peer) {
      await service.createVm(readCreateVm(request), from(call, peer));
      return {};
    },
    async *startVm(r, call, peer) {
      for await (const progress of service.startVm(parseSandboxId(r.sandboxId), from(call, peer)))
        yield startVmEvent(progress);
    },
    async stopVm(r, call, peer) {
      const request = {
        ...{ id: parseSandboxId(r.sandboxId), reason: r.reason || "the node asked for it" },
        ...(r.nodeId === "" ? {} : { nodeId: checkNodeId(r.nodeId) }),
        ...(r.instanceId === "" ? {} : { instanceId: parseInstanceId(r.instanceId) }),
      };
      await service.stopVm(request, from(call, peer));
      return {};
    },
    async *watchVm(r, call, peer) {
      for await (const loss of service.watchVm(checkNodeId(r.nodeId), from(call, peer)))
        yield VmEvent.fromPartial(loss);
    },
    signGuest: (r, call, peer) => service.signGuest(parseSandboxId(r.sandboxId), r.csrPem, from(call, peer)),
    identifyStockGuest: (r, call, peer) =>
      service.identifyStockGuest(parseSandboxId(r.sandboxId), r.publicKeyPem, from(call, peer)),
    async pullSecrets(r, call, peer) {
      return { authJson: (await service.pullSecrets(parseSandboxId(r.sandboxId), from(call, peer))) ?? "" };
    },
    async reportReady(r, call, peer) {
      await service.reportReady(parseSandboxId(r.sandboxId), from(call, peer), r);
      return {};
    },
    async syncNode(r, call, peer) {
      const { stopping, lost, stale, store, recovering } = await service.syncNode(readReport(r), from(call, peer));
      return {
        ...{ stoppingSandboxIds: [...stopping], lostSandboxIds: [...lost], stale, recovering },
        ...{ storeEpoch: store.epoch, storeSeq: BigInt(store.seq) },
      };
    },
  };
}

function nodeCall(deps: HandlerDeps, call: Call, peer: Peer): NodeCall {
  const own = { ...call, signal: AbortSignal.any([call.signal, deps.closing]) };
  if (!deps.network) return own;
  const commonName = peer.certificate?.subject.CN;
  const nodeId = typeof commonName === "string" ? nodeIdOf(commonName) : undefined;
  if (nodeId === undefined) {
    throw new Fault(
      "unauthenticated",
      `${peer.address} shows no node's certificate: enrol the node on the adaptor's socket first`,
    );
  }
  return { ...own, nodeId };
}

/** No cloud has VMs with more data disks. */
const MAX_VOLUMES = 64;

/** @throws Fault invalid_argument */
function readCreateVm(request: CreateVmRequest): CreateVm {
  const { vcpus, memoryMib, gpus, instanceType, image, volumes } = request;
  const { namespace, name, uid } = request.pod ?? { namespace: "", name: "", uid: "" };
  if (!(vcpus >= 0 && vcpus <= 1024))
    throw new Fault("invalid_argument", `vcpus is ${vcpus}: 0 (default) to 1024 are possible`);
  if (memoryMib > 16n * 1024n * 1024n)
    throw new Fault("invalid_argument", `memory_mib is ${memoryMib}: at most 16 TiB are possible`);
  if (volumes.length > MAX_VOLUMES || new Set(volumes).size < volumes.length)
    throw new Fault("invalid_argument", `volumes are ${volumes.join(", ")}: at most ${MAX_VOLUMES}, each once`);
  return {
    id: parseSandboxId(request.sandboxId),
    nodeId: checkNodeId(request.nodeId),
    pod: { namespace, name: name || request.containerdId, uid },
    containerd: { namespace: request.containerdNamespace, id: request.containerdId },
    size: {
      vcpus,
      memoryMiB: Number(memoryMib),
      gpus,
      ...(instanceType === "" ? {} : { instanceType }),
      ...(image === "" ? {} : { image }),
      ...(volumes.length === 0 ? {} : { volumes }),
    },
    ...(request.bootId === ""
      ? {}
      : {
          madeAfter: {
            bootId: request.bootId,
            session: String(request.session),
            sequence: Number(request.sequence),
          },
        }),
    ...(request.stock === undefined ? {} : { stock: readStock(request.stock) }),
  };
}

const STAGES = {
  accepted: StartVmEvent_Stage.ACCEPTED,
  instance: StartVmEvent_Stage.INSTANCE,
  address: StartVmEvent_Stage.ADDRESS,
  failed: StartVmEvent_Stage.FAILED,
  waiting: StartVmEvent_Stage.WAITING,
} as const;

function startVmEvent(progress: StartProgress): StartVmEvent {
  const { elapsedMs, stage, ...rest } = progress;
  const addresses = "addresses" in rest ? [...rest.addresses] : [];
  return StartVmEvent.fromPartial({ ...rest, addresses, stage: STAGES[stage], elapsedMs: BigInt(elapsedMs) });
}

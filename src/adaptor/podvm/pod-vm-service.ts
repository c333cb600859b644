import type { Call } from "../../base/call.ts";
import type { InstanceId, OperationId, SandboxId } from "../../base/ids.ts";
import type { Instance } from "../../provider/index.ts";
import type { OperationRecord, ReportMark, SandboxRecord, VmSize } from "../store/index.ts";
import type { NodeCall } from "./node-call.ts";
import type { NodeReport, SyncAnswer } from "./node-report.ts";
import type { NodeSession } from "./node-sessions.ts";
import type { StartProgress } from "./start-progress.ts";
import type { StockGuestIdentity, StockGuestRequest } from "./stock-request.ts";

export interface CreateVm {
  readonly id: SandboxId;
  readonly nodeId: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
  readonly containerd: { readonly namespace: string; readonly id: string };
  readonly size: VmSize;
  /** The last report that the node sent before this; undefined for an old node. */
  readonly madeAfter?: ReportMark;
  /** Present: the VM's image is the stock one. */
  readonly stock?: StockGuestRequest;
}

export interface StopVm {
  readonly id: SandboxId;
  readonly reason: string;
  /** What the node knows of it; for a store that has lost the record. */
  readonly nodeId?: string;
  readonly instanceId?: InstanceId;
}

export interface SignedGuest {
  readonly certificatePem: string;
  readonly caPem: string;
  readonly verifiedBy: "console" | "address";
}

export interface LossEvent {
  readonly sandboxId: SandboxId;
  readonly instanceId: string;
  readonly reason: string;
}

/** What the node says of a pod that is ready. */
export interface ReadyFacts {
  /** Its class is a confidential one, and permits root file systems that the node makes. */
  readonly nodeRootfsAllowed: boolean;
}

/** The adaptor's one domain service; gRPC and REST are doors to it. Every method may be repeated. */
export interface PodVmService {
  /** A node's certificate, for this adaptor and for its guests. Over the network only a renewal by the node itself. */
  enrollNode(
    nodeId: string,
    csrPem: string,
    call: NodeCall,
  ): Promise<{ readonly certificatePem: string; readonly caPem: string }>;
  /** Writes the record; no cloud call, so a crash here leaks nothing. @throws Fault resource_exhausted at the limit */
  createVm(request: CreateVm, call: NodeCall): Promise<void>;
  /** Follows the start, which goes on when `call` ends; repeating it joins. @throws Fault not_found */
  startVm(id: SandboxId, call: NodeCall): AsyncIterable<StartProgress>;
  /** Resolves when the deletion is durable. An unknown id is success; one that the store lost is stopped all the same. */
  stopVm(request: StopVm, call: NodeCall): Promise<void>;
  /** Pins the first key that comes. @throws Fault already_exists for a second one; permission_denied against the console */
  signGuest(id: SandboxId, csrPem: string, call: NodeCall): Promise<SignedGuest>;
  /** What to expect of a guest with the stock image, and the client certificate that it takes. */
  identifyStockGuest(id: SandboxId, publicKeyPem: string, call: NodeCall): Promise<StockGuestIdentity>;
  /** `auth.json` for the pod's images, for a guest that pulls them; undefined when there is none. */
  pullSecrets(id: SandboxId, call: NodeCall): Promise<string | undefined>;
  reportReady(id: SandboxId, call: NodeCall, facts?: ReadyFacts): Promise<void>;
  syncNode(report: NodeReport, call: NodeCall): Promise<SyncAnswer>;
  /** Sandboxes of the node whose instance ended by itself, those already known first. Ends with the call. */
  watchVm(nodeId: string, call: NodeCall): AsyncIterable<LossEvent>;

  /** A node that does not come back: its sandboxes are stopped, and nobody waits for its report. @throws Fault not_found */
  forgetNode(nodeId: string, reason: string): Promise<readonly SandboxId[]>;
  nodes(): Promise<readonly NodeSession[]>;

  sandboxes(): Promise<readonly SandboxRecord[]>;
  sandbox(id: SandboxId): Promise<SandboxRecord | undefined>;
  operations(limit: number): Promise<readonly OperationRecord[]>;
  operation(id: OperationId): Promise<OperationRecord | undefined>;
  instances(call: Call): Promise<readonly Instance[]>;
  /** @throws Fault not_found; unimplemented where the provider has no console */
  console(id: InstanceId, maxBytes: number, call: Call): Promise<string>;
  /** Has an instance removed that no sandbox owns. @throws Fault failed_precondition when one does */
  collect(id: InstanceId, call: Call): Promise<OperationId>;
}

import type { InstanceId, OperationId, SandboxId } from "../../base/ids.ts";

/**
 * prepared → creating → booting → ready → stopping → gone; phase-table.ts has every step that is possible.
 * `failed`: the start gave up (its instance is being removed or is gone); `lost`: the instance ended by itself.
 * A record stays as `gone` for a while, so that a late repetition of a call cannot bring the sandbox back.
 */
export type Phase = "prepared" | "creating" | "booting" | "ready" | "stopping" | "gone" | "failed" | "lost";

/** What the adaptor durably knows of one sandbox. Enough to finish or undo whatever was begun. */
export interface SandboxRecord {
  readonly id: SandboxId;
  /** Version of this record's form, see record-version.ts. */
  readonly form?: number;
  /** Grows with every change: the token of compare-and-set. */
  readonly revision: number;
  readonly phase: Phase;
  readonly nodeId: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
  readonly containerd: { readonly namespace: string; readonly id: string };
  /** As asked for; 0 or absent means the default. */
  readonly request: VmSize;
  /** Written before the first create call goes out. */
  readonly intent?: CreateIntent;
  /** Set once the provider has accepted; addresses follow. */
  readonly instance?: AcceptedInstance;
  /** The one key that may be this sandbox's guest. */
  readonly guestKey?: { readonly fingerprint: string; readonly verifiedBy: "console" | "address" };
  /** The last report of its node that was sent before this sandbox was made: it and earlier ones say nothing of it. */
  readonly madeAfter?: ReportMark;
  /** RFC 3339. Set when a node's report brought it back after the store had lost it. */
  readonly rebuiltAt?: string;
  /** Present: its VM has the stock image. */
  readonly stock?: StockRecord;
  readonly stopReason?: string;
  readonly lastFault?: RecordedFault;
  /** RFC 3339, as phaseSince. */
  readonly createdAt: string;
  readonly phaseSince: string;
}

/** A place in the row of reports of one life of a node: `session` grows with each start of its daemon until it reboots. */
export interface ReportMark {
  readonly bootId: string;
  /** Decimal: it has 64 bits. */
  readonly session: string;
  readonly sequence: number;
}

/** What was decided for a VM with the stock image, before it was asked for. */
export interface StockRecord {
  /** Name in its forwarder's certificate. */
  readonly serverName: string;
  /** The forwarder's; absent when the image has one of the operator. */
  readonly certificatePem?: string;
  /** Its user-data and the key that signs its one client, encrypted: see StockGuests. */
  readonly sealed: string;
}

export interface VmSize {
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
  readonly instanceType?: string;
  readonly image?: string;
  /** Ids of volumes that outlive the VM, in the order in which they are attached. */
  readonly volumes?: readonly string[];
}

/** Decided once per sandbox, so that a repeated create call asks for the very same instance. */
export interface CreateIntent {
  /** Idempotency token, tag of the instance and id of the start operation. */
  readonly createOperation: OperationId;
  readonly name: string;
  /** RFC 3339 */
  readonly created: string;
}

export interface AcceptedInstance {
  readonly id: InstanceId;
  readonly addresses: readonly string[];
  readonly port: number;
}

export interface RecordedFault {
  readonly code: string;
  readonly message: string;
  /** As in the Fault's context: what it means (FaultKind of src/provider), and when it is worth another try, ms. */
  readonly kind?: string;
  readonly retryAfterMs?: number;
  readonly retryable?: boolean;
  /** RFC 3339 */
  readonly at: string;
}

/** A change to a record; `undefined` removes an optional field. */
export type SandboxChange = {
  readonly [K in Exclude<keyof SandboxRecord, "id" | "form" | "revision" | "createdAt" | "phaseSince">]?:
    | SandboxRecord[K]
    | undefined;
};

import type { InstanceId, OperationId, SandboxId } from "../../base/ids.ts";

/**
 * prepared → creating → booting → ready → stopping → gone.
 * `failed`: the start gave up (its instance is being removed or is gone); `lost`: the instance ended by itself.
 * A record stays as `gone` for a while, so that a late repetition of a call cannot bring the sandbox back.
 */
export type Phase = "prepared" | "creating" | "booting" | "ready" | "stopping" | "gone" | "failed" | "lost";

/** What the adaptor durably knows of one sandbox. Enough to finish or undo whatever was begun. */
export interface SandboxRecord {
  readonly id: SandboxId;
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
  readonly stopReason?: string;
  readonly lastFault?: RecordedFault;
  /** RFC 3339, as phaseSince. */
  readonly createdAt: string;
  readonly phaseSince: string;
}

export interface VmSize {
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
  readonly instanceType?: string;
  readonly image?: string;
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
  /** RFC 3339 */
  readonly at: string;
}

/** A change to a record; `undefined` removes an optional field. */
export type SandboxChange = {
  readonly [K in Exclude<keyof SandboxRecord, "id" | "revision" | "createdAt" | "phaseSince">]?:
    | SandboxRecord[K]
    | undefined;
};

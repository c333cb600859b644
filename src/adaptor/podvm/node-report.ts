import type { InstanceId, SandboxId } from "../../base/ids.ts";
import type { Position, ReportMark, SandboxRecord } from "../store/index.ts";

/** A sandbox as its node knows it. */
export interface LiveSandbox {
  readonly id: SandboxId;
  readonly instanceId?: InstanceId;
  readonly addresses: readonly string[];
  readonly port: number;
  readonly guestKey?: SandboxRecord["guestKey"];
  readonly ready: boolean;
  readonly pod: SandboxRecord["pod"];
  readonly containerd: SandboxRecord["containerd"];
}

/** A stop that the node could not deliver yet. */
export interface PendingStop {
  readonly id: SandboxId;
  readonly reason: string;
  readonly instanceId?: InstanceId;
}

export interface NodeReport {
  readonly nodeId: string;
  /** Place of the report; a new boot id means that every pod of the node is gone. */
  readonly mark: ReportMark;
  readonly live: readonly SandboxId[];
  /** More about those of `live` that have a VM. */
  readonly details: readonly LiveSandbox[];
  readonly pendingStops: readonly PendingStop[];
  /** The newest that this node was told of the store. */
  readonly store: Position;
}

export interface SyncAnswer {
  readonly stopping: readonly SandboxId[];
  readonly lost: readonly SandboxId[];
  readonly stale: boolean;
  readonly store: Position;
  readonly recovering: boolean;
}

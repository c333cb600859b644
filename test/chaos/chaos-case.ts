import type { CloudTrouble } from "./cloud.ts";
import type { CloudKind } from "./clouds.ts";
import type { Fault } from "./faults.ts";
import type { AdaptorSetup, StoreKind } from "./world-config.ts";

/** Steps of a creation, in their order. */
export const CREATE_STEPS = [
  ...["create-asked", "prepared", "run-asked", "run-effect", "accepted", "configured", "sandbox-asked"],
  ...["rootfs-sent", "container-asked", "created", "start-asked", "started"],
] as const;

/** Steps of a deletion, roughly in their order: what node, adaptor and containerd do overlaps. */
export const DELETE_STEPS = [
  ...["kill-asked", "exit-seen", "node-stopping", "destroy-asked", "stop-recorded", "end-asked", "end-effect"],
  ...["removed", "deleted"],
] as const;

export interface Hit {
  readonly at: string;
  readonly fault: Fault;
}

/** How the cloud misbehaves, from right before the creation or the deletion on. */
export type Trouble = CloudTrouble & { readonly during: "create" | "delete" };

/**
 * One case: a bystander pod runs; then a second pod is made, looked at and deleted, while something breaks; then the
 * bystander is looked at and deleted. After that nothing may be left of either.
 */
export interface ChaosCase {
  readonly name: string;
  readonly store: StoreKind;
  /** How many adaptors there are, and which of them the node reaches; one unless it is said. */
  readonly adaptors?: AdaptorSetup;
  /** Where its VMs come from; the account that the run is for unless it is said. */
  readonly cloud?: CloudKind;
  readonly hits: readonly Hit[];
  /** How many pods are made at once; 1 unless it is said. */
  readonly pods?: number;
  readonly troubles?: readonly Trouble[];
  /** When a copy of Redis is taken that a hit puts back. */
  readonly snapshot?: "before-bystander" | "after-bystander";
  /** What becomes of the second pod's creation. */
  readonly create: "succeeds" | "fails" | "either";
  /** What containerd is told of a failed creation. */
  readonly reason?: RegExp;
  readonly bystander: "runs" | "ends";
  /** After it an operator says that nothing runs in the VMs that neither a record nor a node claims. */
  readonly operator?: boolean;
  /** Until everything must be as it should be, ms, once it is whole again. */
  readonly boundMs?: number;
  /** Part of the short run. */
  readonly quick?: boolean;
}

/**
 * What the death of a node daemon means for its pods: nothing, since their connections and listeners are the relay's,
 * a process of its own. Only a call that is on its way then may fail.
 */
export const DAEMON_DEATH: "ends-pods" | "unnoticed" = "unnoticed" as "ends-pods" | "unnoticed";

/** Whether a fault ends the pod that is being made or deleted, which containerd must then be told. */
export function endsPod(fault: Fault): boolean {
  switch (fault.kind) {
    case "kill-vm":
    case "reboot-node":
    case "lose-node":
      return true;
    case "kill":
      return fault.whom === "relay" || (fault.whom === "node" && DAEMON_DEATH === "ends-pods");
    default:
      return false;
  }
}

/** Whether a fault ends every pod of the node. */
export function endsNode(fault: Fault): boolean {
  return endsPod(fault) && fault.kind !== "kill-vm";
}

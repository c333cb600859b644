import type { Call } from "../base/call.ts";
import type { SandboxId } from "../base/ids.ts";
import type { Logger } from "../base/log.ts";
import type { PodNetwork } from "../podnetwork/index.ts";
import type { Relay, TaskReply, TaskRequest } from "../relay/index.ts";
import type { Hypervisor, VmLoss } from "./hypervisor/index.ts";
import type { ShimConfig } from "./shim-config.ts";

/** What the node daemon gives the shim. */
export interface ShimDeps {
  readonly relay: Relay;
  /** By name: "remote", "qemu". */
  readonly hypervisors: ReadonlyMap<string, Hypervisor>;
  /** None: pods have their own localhost only. */
  readonly podNetwork?: PodNetwork | undefined;
  /** Guests that the relay holds for another than the shim. */
  readonly isForeign?: (id: SandboxId) => boolean;
  readonly config: ShimConfig;
  readonly log: Logger;
  /** State is kept below it, in `tasks/`; root file systems are mounted below it, in `mnt/`. */
  readonly runDir: string;
  /** What a door was opened for: `<namespace>@<containerd address>`, or an address alone. @throws Fault not_found */
  readonly doorAddress: (door: string) => string;
  readonly now?: () => Date;
}

/** What serves containerd: every Task call of every containerd of the node. Create it with createShim. */
export interface ShimService {
  /** For `relay.onTaskRequest`. Never rejects. */
  answer(request: TaskRequest, call: Call): Promise<TaskReply>;
  /**
   * Goes on with the pods of an earlier daemon whose guests the relay holds, and stops the VMs of all others that it
   * left, as its state files name them. Call it before the first door opens. What cannot be stopped now (adaptor away) is tried again in the background until it succeeds.
   */
  recover(call: Call): Promise<void>;
  /** Dead-shim clean-up of one container (`delete`, Control.Cleanup). An id that nothing is known of is success. */
  cleanup(address: string, namespace: string, id: string, call: Call): Promise<CleanupResult>;
  /** Every pod of this daemon. */
  status(): readonly ShimSandboxStatus[];
  /** Pods that exist or are still being taken down; 0 = the daemon may end. */
  sandboxCount(): number;
  /** For `Hypervisor.sync`: the sandboxes of this daemon, optionally of one backend only. */
  liveSandboxes(hypervisor?: string): readonly SandboxId[];
  /** For `Hypervisor.watch`. */
  onVmLoss(loss: VmLoss): void;
  /** Leaves the pods to the next daemon, but those that cannot live without this one. Nothing is written any more. */
  handOver(reason: string): Promise<void>;
  /** Ends every pod (killed: 137, exit events flushed) and stops what runs in the background. */
  close(reason: string): Promise<void>;
}

export interface CleanupResult {
  readonly pid: number;
  readonly exitStatus: number;
  readonly exitedAt: Date;
}

export interface ShimSandboxStatus {
  readonly sandboxId: SandboxId;
  readonly containerdAddress: string;
  readonly namespace: string;
  readonly id: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
  readonly hypervisor: string;
  readonly state: "creating" | "running" | "stopping" | "stopped";
  readonly instanceId: string;
  readonly createdAt: Date;
  readonly guestBootId: string;
  readonly guestKernel: string;
  readonly containers: readonly {
    readonly id: string;
    readonly state: string;
    readonly exitCode: number;
    /** Made by the node, or pulled in the guest. */
    readonly rootfs: "node" | "guest";
  }[];
  /** How far the guest is with images that it pulls, a line for each. */
  readonly pulls: readonly string[];
  /** ms spent in each stage of the start, in order. */
  readonly timings: readonly StageTiming[];
}

export interface StageTiming {
  readonly stage: string;
  readonly ms: number;
}

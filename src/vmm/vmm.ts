import type { Call } from "../base/call.ts";

/** A VM's place on a bridge of this host. */
export interface TapNetwork {
  readonly bridge: string;
  /** IPv4, the guest's own. */
  readonly address: string;
  readonly prefixLength: number;
  /** The guest's router; none: it reaches nothing but this host. */
  readonly gateway?: string;
}

/** A machine to run on this host. Paths are absolute. */
export interface VmmSpec {
  /** Short name for the process list. */
  readonly name: string;
  /** Directory that holds everything of this VM (disk overlay, seed, sockets, console); exists, mode 0700. */
  readonly dir: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly kernelParams: readonly string[];
  /** Read-only base image (raw ext4); the VM writes into an overlay in `dir`. */
  readonly imagePath: string;
  /** Made into a NoCloud seed labelled "cidata". */
  readonly userData: Uint8Array;
  readonly metaData: string;
  /** Where the guest hangs on a bridge, which is there; without it the network is user-mode. */
  readonly tap?: TapNetwork | undefined;
  /** The guest's port that is dialled. User-mode network: a free host port on 127.0.0.1 is forwarded to it. */
  readonly guestPort: number;
  /**
   * User-mode network: lets the guest open connections through the host; off unless true. It then reaches the host's
   * own loopback services too, at 10.0.2.2.
   */
  readonly outbound?: boolean;
  /** Size of the disk as the guest sees it, when more than the image's. */
  readonly diskGiB?: number;
  /** `child`: dies with us (killed by the driver on close). `detached`: own session and cgroup, outlives us. */
  readonly lifetime: "child" | "detached";
  readonly acceleration: "auto" | "kvm" | "tcg";
  /**
   * What the guest writes on its console once it is up. One that never writes it is started anew once, then ended, with
   * that reason. Without it nobody watches.
   */
  readonly lifeSign?: string;
}

/** Plain data: enough for another process to find, watch and stop the VM. */
export interface VmmHandle {
  readonly dir: string;
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat: tells the process from a later one with the same pid. */
  readonly startTicks: string;
  /** Where to dial the guest; no address means 127.0.0.1. */
  readonly address?: string;
  readonly hostPort: number;
}

/** A local monitor's driver. */
export interface Vmm {
  readonly name: string;
  /** Prepares the files and starts the monitor; repeatable for one dir: a living VM there is returned. */
  start(spec: VmmSpec, call: Call): Promise<VmmHandle>;
  /** Finds the VM that lives in a directory, if its process still does. */
  find(dir: string, call: Call): Promise<VmmHandle | undefined>;
  /** Resolves when the process has ended, however. Polls: the VM need not be our child. */
  wait(handle: VmmHandle, call: Call): Promise<{ readonly reason: string }>;
  /** Ends the VM now and removes its directory. Already gone is success. */
  destroy(dir: string, call: Call): Promise<void>;
}

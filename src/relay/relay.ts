import type { Call } from "../base/call.ts";
import type { SandboxId } from "../base/ids.ts";
import type { CallOptions, Metadata, UnaryCaller } from "../ttrpc/index.ts";

/**
 * The message interface between the node daemon and what must not break while the daemon restarts: containerd's
 * connections, stdio FIFOs and the guest connections. Everything that crosses it is plain data (plus a Call, which a
 * process boundary turns into a cancel message), so that these parts can move into a process of their own unchanged.
 */
export interface Relay extends AsyncDisposable {
  /** A process that lives as long as the guests that are connected from now on: what containerd is told as their pid. */
  readonly pid: number;
  /** What an earlier daemon left here. */
  held(call: Call): Promise<HeldByRelay>;
  /** Listens for Task calls of one containerd. `door` names it in requests. Repeatable. */
  openDoor(door: DoorSpec): Promise<void>;
  closeDoor(door: string): Promise<void>;
  /**
   * Who answers Task calls, and signs for guests. Called once, before the first door opens and after what an earlier
   * daemon left has been taken over: calls that waited for an answer come from here on.
   */
  onTaskRequest(answer: (request: TaskRequest, call: Call) => Promise<TaskReply>): Promise<void>;

  /** Dials, enrols and configures the guest; resolves when the agent answers Health.Check. */
  connectGuest(spec: GuestSpec, call: Call): Promise<GuestFacts>;
  /** Calls of the agent, repeated over reconnects under one request key. @throws StatusError | Fault unavailable (guest lost) */
  guest(id: SandboxId): UnaryCaller;
  /** Resolves when the guest is lost for good, never rejects. */
  guestLost(id: SandboxId): Promise<{ readonly reason: string }>;
  /** Says that the VM is known to be gone: pending calls fail now instead of waiting for a reconnect. */
  declareLost(id: SandboxId, reason: string): void;
  disconnectGuest(id: SandboxId): Promise<void>;
  /** Sends a directory tree over a TLS connection of its own. */
  sendTree(id: SandboxId, tree: TreeSpec, call: Call): Promise<TreeReceipt>;

  /** Serves a connected guest's agent on a unix socket, for shims that are not ours. Repeatable. */
  openAgentSocket(spec: AgentSocketSpec): Promise<void>;
  /** Ends its connections and removes the socket; idempotent. */
  closeAgentSocket(id: SandboxId): Promise<void>;
  /** Who uses the agent sockets now. */
  agentSocketUse(): Promise<readonly AgentSocketUse[]>;

  /** Starts copying between the stdio URIs and a process in the guest. Opening never blocks. Repeatable. */
  attachStdio(spec: StdioSpec, call: Call): Promise<void>;
  /** Resolves when stdout and stderr have reached end of file and all of it is written. */
  stdioDrained(key: string): Promise<void>;
  /**
   * How the process of an attached stdio ended. Asked of the guest once its output is drained (the stock agent forgets a
   * process, its output with it, with its exit code) and kept until detachStdio, for whoever asks.
   * @throws StatusError | Fault unavailable (guest lost)
   */
  processExit(key: string, call: Call): Promise<ProcessExit>;
  /** The exit waits no longer for output that nobody takes. */
  giveUpOutput(key: string): Promise<void>;
  /** Delivers what is still in the stdin FIFO, then closes the process's stdin. */
  closeStdin(key: string, call: Call): Promise<void>;
  /** Closes the FIFOs and forgets the exit; idempotent. */
  detachStdio(key: string): Promise<void>;

  /** Leaves everything as it is for the next daemon; nothing that was asked for is answered any more. */
  handOver(): Promise<void>;
}

export interface HeldByRelay {
  readonly guests: ReadonlyMap<SandboxId, GuestFacts>;
  /** Keys of Task calls that still wait for an answer: they will be delivered. */
  readonly taskKeys: ReadonlySet<string>;
}

export interface ProcessExit {
  /** 128 + n after signal n. */
  readonly status: number;
  /** When the guest said so. */
  readonly at: Date;
}

export interface DoorSpec {
  readonly door: string;
  readonly socketPath: string;
}

export interface TaskRequest {
  /** The same when the request is delivered to the next daemon because its first one died. */
  readonly key: string;
  readonly door: string;
  readonly connection: number;
  readonly service: string;
  readonly method: string;
  readonly payload: Uint8Array;
  readonly metadata: Metadata;
  readonly timeoutMs: number | undefined;
}

export type TaskReply =
  | { readonly ok: true; readonly payload: Uint8Array }
  | { readonly ok: false; readonly code: number; readonly message: string };

export interface GuestSpec {
  readonly sandboxId: SandboxId;
  readonly addresses: readonly string[];
  readonly port: number;
  readonly hostname: string;
  /** What the guest makes of its pod's network, as Configure takes it; none: the pod has its own localhost only. */
  readonly podNetworkJson?: string;
  readonly identity: { readonly caPem: string; readonly certificatePem: string; readonly keyPem: string };
  /** Signs the guest's CSR (only asked on the first connection). */
  readonly sign: (
    csrPem: string,
    call: Call,
  ) => Promise<{ readonly certificatePem: string; readonly verifiedBy: string }>;
  /** Each stage as it is reached: "connected", "enrolled", "configured", "agent". */
  readonly onStage?: (stage: string) => void;
  /** After this long without a connection the guest is lost, ms. */
  readonly lostAfterMs: number;
  /** Present: the stock forwarder listens there, which neither enrols nor takes a configuration. */
  readonly stock?: StockGuestSpec;
}

/** The stock forwarder as a TLS peer. */
export interface StockGuestSpec {
  /** SNI, and the name in its certificate. */
  readonly serverName: string;
  /** The one certificate that it may show; absent: any of `identity.caPem` with that name. */
  readonly certificatePem?: string;
  /** Default TLS 1.2; 1.3 is what two current peers agree on. */
  readonly minVersion?: "TLSv1.2" | "TLSv1.3";
  /** OpenSSL's names, for TLS 1.2. */
  readonly ciphers?: string;
}

export interface AgentSocketSpec {
  readonly sandboxId: SandboxId;
  /** 0600; what lies there is replaced. */
  readonly path: string;
  /** Where the kubelet's CSI drivers describe volumes; absent: no volumes are looked for. */
  readonly directVolumesDir?: string;
  /** Only its volumes are the pod's; "" when it is not known. */
  readonly podUid: string;
  /**
   * Where the shim, in its own mount namespace, mounts its containers' root filesystems, `<container id>/rootfs`: they
   * are carried into the guest, which must be ours. Absent: root filesystems come with the requests.
   */
  readonly rootfsDir?: string;
}

export interface AgentSocketUse {
  readonly sandboxId: SandboxId;
  readonly connections: number;
  /** Since the last connection ended, or since the socket is there, ms; 0 while there is one. */
  readonly idleMs: number;
}

export interface GuestFacts {
  readonly bootId: string;
  readonly kernelRelease: string;
  readonly guestVersion: string;
  /** ms from the guest kernel's start to "listening". */
  readonly listeningMs: number;
  readonly verifiedBy: string;
  /** Public key that the guest made for its pod's tunnel; absent: its plan asks for none. */
  readonly tunnelKey?: string;
}

export interface TreeSpec {
  /** Names the content; the guest keeps one copy per VM. */
  readonly treeId: string;
  /** Host directory. */
  readonly path: string;
}

export interface TreeReceipt {
  readonly bytes: number;
  readonly sha256: string;
  readonly skipped: boolean;
}

export interface StdioSpec {
  /** Unique per process life. */
  readonly key: string;
  readonly sandboxId: SandboxId;
  readonly containerId: string;
  readonly execId: string;
  readonly terminal: boolean;
  /** containerd's, for a logger program. */
  readonly namespace?: string;
  /** "" | path | fifo:// | file:// | binary:// as containerd gives them. */
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Metadata of a guest call whose answer the relay keeps for the next daemon, which calls under the same value:
 * `<key of the Task call>/<step>`, kept until that call is answered; or `guest/<name>`, kept until it has been taken.
 * It goes no further than the relay.
 */
export const KEEP_KEY = "kata-remote-keep";

export { REQUEST_KEY, STREAM_OFFSET, TREE_ALPN } from "../guestwire/index.ts";

export type { CallOptions };

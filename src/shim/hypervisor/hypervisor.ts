import type { Call } from "../../base/call.ts";
import type { InstanceId, SandboxId } from "../../base/ids.ts";

/** What a pod asks of its VM. 0 means the backend's default. */
export interface VmRequest {
  readonly sandboxId: SandboxId;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
  /** For people: what containerd calls it. */
  readonly containerd: { readonly namespace: string; readonly id: string };
  readonly vcpus: number;
  /** What the pod may use, MiB; the backend adds the guest's own overhead. */
  readonly memoryMiB: number;
  readonly gpus: number;
  readonly instanceType?: string;
  readonly image?: string;
  /** Ids of the cloud's volumes that are to be attached while the VM lives, in this order. Only `remote` can do that. */
  readonly volumes?: readonly string[];
  /** Present: the VM's image is the stock one. Only `remote` can make those. */
  readonly stock?: StockVmRequest;
}

/** What a VM with the stock image is told at boot, as far as the node knows it. */
export interface StockVmRequest {
  /** `pod-network` of apf.json. */
  readonly podNetwork: object;
  /** Plain TOML. */
  readonly initdata?: string;
  readonly scratchSpace: boolean;
  /** The image has certificates of the operator. */
  readonly operatorCertificates: boolean;
  /** "VersionTLS12" or "VersionTLS13". */
  readonly tlsMinVersion?: string;
  /** IANA names. */
  readonly tlsCipherSuites: readonly string[];
}

/** How to call a forwarder of the stock image, which does not enrol. */
export interface StockIdentity {
  readonly serverName: string;
  /** The one certificate that it may show. */
  readonly serverCertificatePem: string;
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** Where to dial the guest. */
export interface VmAddress {
  readonly instanceId: InstanceId;
  readonly addresses: readonly string[];
  readonly port: number;
}

export interface GuestIdentity {
  /** Leaf first. */
  readonly certificatePem: string;
  readonly verifiedBy: "console" | "address";
}

/** What whoever watches pods should hear of one. */
export interface ReadyFacts {
  /** Its class is a confidential one, and permits root file systems that the node makes. */
  readonly nodeRootfsAllowed: boolean;
}

/** How a VM ended by itself. */
export interface VmLoss {
  readonly sandboxId: SandboxId;
  readonly reason: string;
}

export interface HypervisorCapabilities {
  readonly blockDevices: boolean;
  readonly hotplug: boolean;
  readonly sharedFs: boolean;
}

/** What the shim asks of whatever runs VMs: `remote` (the adaptor) and `qemu` (a child of the node daemon) implement it. */
export interface Hypervisor {
  readonly name: "remote" | "qemu";
  readonly capabilities: HypervisorCapabilities;
  /** CA that signs this backend's guests, PEM, and the client identity that its guests accept. */
  clientIdentity(
    call: Call,
  ): Promise<{ readonly caPem: string; readonly certificatePem: string; readonly keyPem: string }>;
  /** Reserves the VM; no instance exists yet. Repeating it with the same id is success. */
  createVm(request: VmRequest, call: Call): Promise<void>;
  /** Resolves as soon as an address is known: dialling starts before the cloud says "finished". Repeating it joins. */
  startVm(id: SandboxId, call: Call): Promise<VmAddress>;
  /** Pins and signs the guest's key. @throws Fault already_exists when another key claimed this sandbox before */
  signGuest(id: SandboxId, csrPem: string, call: Call): Promise<GuestIdentity>;
  /** For a VM with the stock image whose certificates are ours. @throws Fault unimplemented where there are none */
  stockIdentity(id: SandboxId, call: Call): Promise<StockIdentity>;
  /** `auth.json` of the pod's image pull secrets; undefined: it has none. Absent where the backend knows no cluster. */
  pullSecrets?(id: SandboxId, call: Call): Promise<string | undefined>;
  /** The agent answered. */
  reportReady(id: SandboxId, call: Call, facts?: ReadyFacts): Promise<void>;
  /** Resolves when deletion is durable, not when it has finished. Unknown id is success. */
  stopVm(id: SandboxId, reason: string, call: Call): Promise<void>;
  /** Calls back for every VM of this node that ends by itself, until the call ends. */
  watch(onLoss: (loss: VmLoss) => void, call: Call): Promise<void>;
  /** Tells the backend which sandboxes live on this node; it stops all others of this node. */
  sync(live: readonly SandboxId[], call: Call): Promise<void>;
  check(call: Call): Promise<{ readonly version: string }>;
  close(): Promise<void>;
}

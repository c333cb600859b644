import type { Call } from "../../src/base/call.ts";
import { parseInstanceId, type SandboxId } from "../../src/base/ids.ts";
import type {
  GuestIdentity,
  Hypervisor,
  ReadyFacts,
  StockIdentity,
  VmAddress,
  VmLoss,
  VmRequest,
} from "../../src/shim/hypervisor/index.ts";

/** VMs in memory. */
export class FakeHypervisor implements Hypervisor {
  readonly name: "remote" | "qemu";
  readonly capabilities = { blockDevices: false, hotplug: false, sharedFs: false };
  readonly requests: VmRequest[] = [];
  readonly started: SandboxId[] = [];
  readonly ready: SandboxId[] = [];
  readonly readyFacts: (ReadyFacts | undefined)[] = [];
  /** In the order in which they were stopped. */
  readonly stopped: { id: SandboxId; reason: string }[] = [];
  beforeCreate: (request: VmRequest, call: Call) => Promise<void> = async () => {};
  beforeStart: (id: SandboxId, call: Call) => Promise<void> = async () => {};
  beforeStop: (id: SandboxId, call: Call) => Promise<void> = async () => {};

  constructor(name: "remote" | "qemu" = "remote") {
    this.name = name;
  }

  async clientIdentity() {
    return { caPem: "ca", certificatePem: "certificate", keyPem: "key" };
  }

  async createVm(request: VmRequest, call: Call): Promise<void> {
    this.requests.push(request);
    await this.beforeCreate(request, call);
  }

  async startVm(id: SandboxId, call: Call): Promise<VmAddress> {
    this.started.push(id);
    await this.beforeStart(id, call);
    return { instanceId: parseInstanceId(`vm-${this.started.length}`), addresses: ["192.0.2.1"], port: 15150 };
  }

  async signGuest(): Promise<GuestIdentity> {
    return { certificatePem: "leaf", verifiedBy: "console" };
  }

  async stockIdentity(): Promise<StockIdentity> {
    return {
      ...{ serverName: "podvm-web", serverCertificatePem: "leaf", caPem: "ca" },
      ...{ certificatePem: "certificate", keyPem: "key" },
    };
  }

  async reportReady(id: SandboxId, _call: Call, facts?: ReadyFacts): Promise<void> {
    this.ready.push(id);
    this.readyFacts.push(facts);
  }

  async stopVm(id: SandboxId, reason: string, call: Call): Promise<void> {
    await this.beforeStop(id, call);
    this.stopped.push({ id, reason });
  }

  async watch(_onLoss: (loss: VmLoss) => void, call: Call): Promise<void> {
    await new Promise((resolve) => call.signal.addEventListener("abort", resolve, { once: true }));
  }

  async sync(): Promise<void> {}

  async check() {
    return { version: "fake" };
  }

  async close(): Promise<void> {}
}

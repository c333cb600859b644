import { Server, ServerCredentials } from "@grpc/grpc-js";
import { deferred } from "../../src/base/deferred.ts";
import { Fault } from "../../src/base/fault.ts";
import {
  PodVmDefinition,
  StartVmEvent,
  StartVmEvent_Stage,
  SyncNodeResponse,
  type VmEvent,
} from "../../src/gen/kataremote/podvm/v1/podvm.ts";
import { implement } from "../../src/grpc/index.ts";
import { type CertificateAuthority, spkiFingerprint } from "../../src/identity/index.ts";

interface StubVm {
  started: boolean;
  pinned: string | undefined;
}

/** The adaptor's gRPC side with VMs that are entries in a map. It can be stopped and started again on its socket. */
export class StubAdaptor {
  readonly vms = new Map<string, StubVm>();
  readonly calls: string[] = [];
  readonly synced: string[][] = [];
  /** Starts of these sandboxes send ACCEPTED and then wait. */
  readonly held = new Map<string, ReturnType<typeof deferred<void>>>();
  /** Starts of these sandboxes fail. */
  readonly failing = new Map<string, Fault>();
  /** Starts that are told this before what else they are told. */
  readonly waiting = new Map<string, Fault>();
  readonly #address: string;
  readonly #ca: CertificateAuthority;
  readonly #watchers = new Set<(event: VmEvent) => void>();
  #server: Server | undefined;

  constructor(address: string, ca: CertificateAuthority) {
    this.#address = address;
    this.#ca = ca;
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  async start(): Promise<void> {
    const server = new Server();
    server.addService(...implement(PodVmDefinition, this.#handlers()));
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(this.#address, ServerCredentials.createInsecure(), (e) => (e === null ? resolve() : reject(e)));
    });
    this.#server = server;
  }

  /** As if killed: streams break, nothing is answered. */
  async kill(): Promise<void> {
    this.#server?.forceShutdown();
    this.#server = undefined;
  }

  lose(sandboxId: string, reason: string): void {
    this.vms.delete(sandboxId);
    for (const tell of this.#watchers) tell({ sandboxId, instanceId: `i-${sandboxId}`, reason });
  }

  #handlers(): Parameters<typeof implement<typeof PodVmDefinition>>[1] {
    const seen = (name: string): void => void this.calls.push(name);
    const event = (sandboxId: string, stage: StartVmEvent_Stage, change: Partial<StartVmEvent> = {}): StartVmEvent =>
      StartVmEvent.fromPartial({ stage, instanceId: `i-${sandboxId}`, operationId: "op-1", ...change });
    const { vms, held, failing, waiting } = this;
    return {
      version: async () => ({ version: "1.2.3", provider: "stub" }),
      enrollNode: async ({ nodeId, csrPem }) => {
        seen("enrollNode");
        return { certificatePem: await this.#ca.signNode(csrPem, nodeId), caPem: this.#ca.caPem };
      },
      createVm: async ({ sandboxId }) => {
        seen("createVm");
        if (!vms.has(sandboxId)) vms.set(sandboxId, { started: false, pinned: undefined });
        return {};
      },
      startVm: async function* ({ sandboxId }) {
        seen("startVm");
        const vm = vms.get(sandboxId);
        if (vm === undefined) throw new Fault("not_found", `sandbox ${sandboxId} was not created`);
        yield event(sandboxId, StartVmEvent_Stage.ACCEPTED);
        const waits = waiting.get(sandboxId);
        if (waits !== undefined) {
          const { code, message } = waits;
          yield event(sandboxId, StartVmEvent_Stage.WAITING, { code, message, instanceId: "" });
        }
        await held.get(sandboxId)?.promise;
        const failure = failing.get(sandboxId);
        if (failure !== undefined) {
          yield event(sandboxId, StartVmEvent_Stage.FAILED, { code: failure.code, message: failure.message });
          return;
        }
        vm.started = true;
        yield event(sandboxId, StartVmEvent_Stage.INSTANCE);
        yield event(sandboxId, StartVmEvent_Stage.ADDRESS, { addresses: ["192.0.2.1"], port: 15150 });
      },
      stopVm: async ({ sandboxId }) => {
        seen("stopVm");
        vms.delete(sandboxId);
        return {};
      },
      watchVm: (_request, call) => this.#watch(call.signal),
      signGuest: async ({ sandboxId, csrPem }) => {
        const vm = vms.get(sandboxId);
        if (vm === undefined) throw new Fault("not_found", `sandbox ${sandboxId} was not created`);
        const key = spkiFingerprint(csrPem);
        vm.pinned ??= key;
        if (vm.pinned !== key) throw new Fault("already_exists", "another key was pinned");
        return {
          certificatePem: await this.#ca.signGuest(csrPem, sandboxId),
          caPem: this.#ca.caPem,
          verifiedBy: "address",
        };
      },
      identifyStockGuest: async () => {
        throw new Fault("failed_precondition", "the stub makes no VMs with the stock image");
      },
      pullSecrets: async () => ({ authJson: "" }),
      reportReady: async () => {
        seen("reportReady");
        return {};
      },
      syncNode: async ({ liveSandboxIds }) => {
        this.synced.push([...liveSandboxIds].sort());
        const stoppingSandboxIds = [...vms.keys()].filter((id) => !liveSandboxIds.includes(id));
        for (const id of stoppingSandboxIds) vms.delete(id);
        const lostSandboxIds = liveSandboxIds.filter((id) => !vms.has(id));
        return SyncNodeResponse.fromPartial({ stoppingSandboxIds, lostSandboxIds });
      },
    };
  }

  async *#watch(signal: AbortSignal): AsyncGenerator<VmEvent> {
    const queue: VmEvent[] = [];
    let wake = deferred<void>();
    const tell = (event: VmEvent): void => {
      queue.push(event);
      wake.resolve();
    };
    this.#watchers.add(tell);
    signal.addEventListener("abort", () => wake.resolve());
    try {
      while (!signal.aborted) {
        yield* queue.splice(0);
        await wake.promise;
        wake = deferred();
      }
    } finally {
      this.#watchers.delete(tell);
    }
  }
}

/** Resolves after the next turn of the event loop in which `condition` holds. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

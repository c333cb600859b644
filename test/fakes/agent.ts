import { type Deferred, deferred } from "../../src/base/deferred.ts";
import { Fault } from "../../src/base/fault.ts";
import { AgentServiceDefinition, type CreateContainerRequest } from "../../src/gen/agent/agent.ts";
import { HealthCheckResponse_ServingStatus, HealthDefinition } from "../../src/gen/agent/health.ts";
import {
  type CallOptions,
  Code,
  type Codec,
  type ServerCall,
  type ServiceImplementation,
  StatusError,
  type UnaryCaller,
} from "../../src/ttrpc/index.ts";

interface FakeProcess {
  readonly exit: Deferred<number>;
  started: boolean;
}

type AgentHandlers = ServiceImplementation<typeof AgentServiceDefinition>;

/** An agent in memory: containers whose processes run until a test or a signal ends them. */
export class FakeAgent implements UnaryCaller {
  /** Methods in the order they were called. */
  readonly calls: string[] = [];
  readonly created = new Map<string, CreateContainerRequest>();
  readonly files = new Map<string, { mode: number; data: Buffer }>();
  readonly signals: { containerId: string; execId: string; signal: number }[] = [];
  readonly resized: { execId: string; row: number; column: number }[] = [];
  /** Overrides of single methods. */
  readonly on: { -readonly [M in keyof AgentHandlers]?: AgentHandlers[M] } = {};
  readonly #processes = new Map<string, FakeProcess>();
  readonly #oom: Deferred<string>[] = [deferred()];
  readonly #gone = new AbortController();
  supportsSeccomp = false;
  terminationLog = "";

  /** The guest is lost: every call that is on its way fails, and every later one. */
  lose(reason: string): void {
    this.#gone.abort(new Fault("unavailable", reason));
  }

  /** Ends a process with an exit code. */
  end(containerId: string, status: number, execId = containerId): void {
    this.#process(containerId, execId).exit.resolve(status);
  }

  oom(containerId: string): void {
    this.#oom[0]?.resolve(containerId);
    this.#oom[0] = deferred();
  }

  /** Resolves when the process has ended. */
  ended(containerId: string, execId: string): Promise<unknown> {
    return this.#processes.get(`${containerId}/${execId}`)?.exit.promise ?? Promise.resolve();
  }

  execIds(containerId: string): string[] {
    return [...this.#processes.keys()]
      .filter((k) => k.startsWith(`${containerId}/`))
      .map((k) => k.slice(containerId.length + 1))
      .filter((id) => id !== containerId);
  }

  async call(service: string, method: string, payload: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    const definition = service === HealthDefinition.fullName ? HealthDefinition : AgentServiceDefinition;
    const [key, found] = Object.entries(definition.methods).find(([, m]) => m.name === method) ?? [];
    if (key === undefined || found === undefined) throw new StatusError(Code.unimplemented, `${service}/${method}`);
    this.calls.push(method);
    const handler = (
      key === "check"
        ? this.#check
        : ((this.on as Record<string, unknown>)[key] ?? (this.#handlers as Record<string, unknown>)[key])
    ) as ((request: unknown, call: ServerCall) => Promise<unknown>) | undefined;
    if (handler === undefined) throw new StatusError(Code.unimplemented, `${service}/${method}`);
    const request = (found.requestType as Codec<unknown>).decode(payload);
    const signal = AbortSignal.any([this.#gone.signal, ...(options.signal === undefined ? [] : [options.signal])]);
    const call: ServerCall = { signal, timeoutMs: options.timeoutMs, metadata: [], service, method };
    const answer = await Promise.race([handler(request, call), rejection(signal)]);
    return (found.responseType as Codec<unknown>).encode(answer).finish();
  }

  readonly #check = async () => ({ status: HealthCheckResponse_ServingStatus.SERVING });

  #process(containerId: string, execId: string): FakeProcess {
    const found = this.#processes.get(`${containerId}/${execId === "" ? containerId : execId}`);
    if (found === undefined) throw new StatusError(Code.notFound, `no process ${execId} in ${containerId}`);
    return found;
  }

  readonly #handlers: AgentHandlers = {
    createSandbox: async () => ({}),
    destroySandbox: async () => ({}),
    setPolicy: async () => ({}),
    getGuestDetails: async () => ({
      memBlockSizeBytes: 0n,
      supportMemHotplugProbe: false,
      agentDetails: {
        version: "fake",
        initDaemon: false,
        deviceHandlers: [],
        storageHandlers: [],
        supportsSeccomp: this.supportsSeccomp,
        extraFeatures: [],
      },
    }),
    createContainer: async (request) => {
      this.created.set(request.containerId, request);
      this.#processes.set(`${request.containerId}/${request.containerId}`, { exit: deferred(), started: false });
      return {};
    },
    startContainer: async ({ containerId }) => {
      this.#process(containerId, containerId).started = true;
      return {};
    },
    execProcess: async ({ containerId, execId }) => {
      this.#processes.set(`${containerId}/${execId}`, { exit: deferred(), started: true });
      return {};
    },
    waitProcess: async ({ containerId, execId }) => ({ status: await this.#process(containerId, execId).exit.promise }),
    signalProcess: async (request) => {
      const { containerId, execId, signal } = request;
      this.signals.push({ containerId, execId, signal });
      const process = this.#process(containerId, execId);
      if (signal === 9 || signal === 15) process.exit.resolve(128 + signal);
      if (signal === 9 && execId === "") {
        for (const [key, p] of this.#processes) if (key.startsWith(`${containerId}/`)) p.exit.resolve(137);
      }
      return {};
    },
    removeContainer: async ({ containerId }) => {
      if (!this.created.delete(containerId)) throw new StatusError(Code.notFound, `no container ${containerId}`);
      return {};
    },
    ttyWinResize: async ({ execId, row, column }) => {
      this.resized.push({ execId, row, column });
      return {};
    },
    pauseContainer: async () => ({}),
    resumeContainer: async () => ({}),
    updateContainer: async () => ({}),
    statsContainer: async () => ({
      cgroupStats: {
        cpuStats: { cpuUsage: { totalUsage: 5_000n, percpuUsage: [], usageInKernelmode: 0n, usageInUsermode: 0n } },
        hugetlbStats: {},
      },
      networkStats: [],
    }),
    copyFile: async ({ path, fileMode, data, offset }) => {
      const before = offset === 0n ? Buffer.alloc(0) : (this.files.get(path)?.data ?? Buffer.alloc(0));
      this.files.set(path, { mode: fileMode, data: Buffer.concat([before, data]) });
      return {};
    },
    getOOMEvent: async () => ({ containerId: await (this.#oom[0] as Deferred<string>).promise }),
    getDiagnosticData: async () => ({ data: this.terminationLog }),
  };
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

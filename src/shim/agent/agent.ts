import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import {
  AgentServiceDefinition,
  CopyFileRequest,
  CreateContainerRequest,
  CreateSandboxRequest,
  type GuestDetailsResponse,
  type StatsContainerResponse,
} from "../../gen/agent/agent.ts";
import { HealthCheckResponse_ServingStatus, HealthDefinition } from "../../gen/agent/health.ts";
import type { LinuxResources, Process } from "../../gen/agent/oci.ts";
import { PACKED_FILES } from "../../guestwire/index.ts";
import { KEEP_KEY, STREAM_OFFSET } from "../../relay/index.ts";
import {
  type CallOptions,
  createClient,
  type Metadata,
  type ServiceClient,
  type UnaryCaller,
} from "../../ttrpc/index.ts";
import { agentFault } from "./agent-fault.ts";
import { FilePacker } from "./file-packer.ts";

export interface AgentDeps {
  /** `relay.guest(id)` */
  readonly caller: UnaryCaller;
  /** Budget of an ordinary call, ms. */
  readonly timeoutMs: number;
  /** Budget of CreateContainer, ms. */
  readonly createContainerTimeoutMs: number;
}

/** Largest piece of a stream that is asked for. */
const CHUNK_BYTES = 128 * 1024;
const at = (offset: number): Metadata => [[STREAM_OFFSET, String(offset)]];

/** A process in the guest; `execId` equals the container's id for its first process. */
export interface ProcessRef {
  readonly containerId: string;
  readonly execId: string;
}

/**
 * Client of the agent in a pod VM, ours or kata-agent. Every method throws a Fault that says what the guest could not
 * do; code "unavailable" means that the guest is lost.
 * Source: reference §3.2 (calls), §9.1 (deadlines).
 */
export class Agent {
  readonly #deps: AgentDeps;
  readonly #agent: ServiceClient<typeof AgentServiceDefinition>;
  readonly #health: ServiceClient<typeof HealthDefinition>;
  #packer: FilePacker | undefined;

  constructor(deps: AgentDeps) {
    this.#deps = deps;
    this.#agent = createClient(AgentServiceDefinition, deps.caller);
    this.#health = createClient(HealthDefinition, deps.caller);
  }

  /** @throws Fault unavailable when the agent says that it does not serve */
  async check(call: Call): Promise<void> {
    const { status } = await this.#run("say that it is healthy", "", () =>
      this.#health.check({ service: "" }, this.#options(call, 30_000)),
    );
    if (status !== HealthCheckResponse_ServingStatus.SERVING) {
      throw new Fault("unavailable", `the agent says that it does not serve (status ${status})`);
    }
  }

  async setPolicy(policy: string, call: Call): Promise<void> {
    await this.#run("apply the policy of annotation io.katacontainers.config.agent.policy", "", () =>
      this.#agent.setPolicy({ policy }, this.#options(call)),
    );
  }

  async createSandbox(request: Partial<CreateSandboxRequest>, call: Call): Promise<void> {
    const full = CreateSandboxRequest.fromPartial(request);
    await this.#run("create the sandbox", "", () => this.#agent.createSandbox(full, this.#options(call)));
  }

  /** Ends all containers; the stock agent ends itself, so that the answer may never come. */
  async destroySandbox(call: Call): Promise<void> {
    await this.#run("destroy the sandbox", "", () => this.#agent.destroySandbox({}, this.#options(call)));
  }

  async guestDetails(call: Call): Promise<GuestDetailsResponse> {
    const request = { memBlockSize: true, memHotplugProbe: true };
    return await this.#run("tell its details", "", () => this.#agent.getGuestDetails(request, this.#options(call)));
  }

  async createContainer(request: Partial<CreateContainerRequest>, call: Call, timeoutMs?: number): Promise<void> {
    const full = CreateContainerRequest.fromPartial(request);
    const options = this.#once("create", call, timeoutMs ?? this.#deps.createContainerTimeoutMs);
    await this.#run(`create container ${full.containerId}`, full.containerId, () =>
      this.#agent.createContainer(full, options),
    );
  }

  async startContainer(containerId: string, call: Call): Promise<void> {
    await this.#run(`start container ${containerId}`, containerId, () =>
      this.#agent.startContainer({ containerId }, this.#once("start", call)),
    );
  }

  /** A container that the guest doesn't know is success. */
  async removeContainer(containerId: string, call: Call): Promise<void> {
    await this.#unlessMissing(`remove container ${containerId}`, containerId, () =>
      this.#agent.removeContainer({ containerId, timeout: 0 }, this.#options(call)),
    );
  }

  async execProcess(ref: ProcessRef, process: Process, call: Call): Promise<void> {
    const request = { ...ref, process, stringUser: undefined, stdinPort: 0, stdoutPort: 0, stderrPort: 0 };
    await this.#run(`run ${process.Args[0] ?? "a process"} in container ${ref.containerId}`, ref.containerId, () =>
      this.#agent.execProcess(request, this.#once("exec", call)),
    );
  }

  /** A process that is gone is success. `execId` "" with SIGKILL reaches every process of the container. */
  async signalProcess(ref: ProcessRef, signal: number, call: Call): Promise<void> {
    await this.#unlessMissing(`send signal ${signal} to container ${ref.containerId}`, ref.containerId, () =>
      this.#agent.signalProcess({ ...ref, signal }, this.#once("signal", call)),
    );
  }

  /** Output of a process that nobody else reads, from an offset on; none at its end. */
  async readOutput(ref: ProcessRef, offset: number, call: Call): Promise<Uint8Array> {
    const { data } = await this.#run("give output", ref.containerId, () =>
      this.#agent.readStdout({ ...ref, len: CHUNK_BYTES }, { signal: call.signal, metadata: at(offset) }),
    );
    return data;
  }

  /** All of `data` is taken when it resolves. */
  async writeInput(ref: ProcessRef, data: Uint8Array, offset: number, call: Call): Promise<void> {
    for (let done = 0; done < data.length; ) {
      const rest = Buffer.from(data.buffer, data.byteOffset + done, data.length - done);
      const options = { signal: call.signal, metadata: at(offset + done) };
      const { len } = await this.#run("take input", ref.containerId, () =>
        this.#agent.writeStdin({ ...ref, data: rest }, options),
      );
      if (len === 0) throw new Fault("unavailable", "the guest took no input");
      done += len;
    }
  }

  async closeInput(ref: ProcessRef, call: Call): Promise<void> {
    await this.#run("close input", ref.containerId, () => this.#agent.closeStdin({ ...ref }, this.#options(call)));
  }

  async resize(ref: ProcessRef, row: number, column: number, call: Call): Promise<void> {
    await this.#run(`resize the terminal of container ${ref.containerId}`, ref.containerId, () =>
      this.#agent.ttyWinResize({ ...ref, row, column }, this.#options(call)),
    );
  }

  async stats(containerId: string, call: Call): Promise<StatsContainerResponse> {
    return await this.#run(`measure container ${containerId}`, containerId, () =>
      this.#agent.statsContainer({ containerId }, this.#options(call)),
    );
  }

  async update(containerId: string, resources: LinuxResources, call: Call): Promise<void> {
    await this.#run(`update the resources of container ${containerId}`, containerId, () =>
      this.#agent.updateContainer({ containerId, resources }, this.#options(call)),
    );
  }

  async pause(containerId: string, call: Call): Promise<void> {
    await this.#run(`pause container ${containerId}`, containerId, () =>
      this.#agent.pauseContainer({ containerId }, this.#once("pause", call)),
    );
  }

  async resume(containerId: string, call: Call): Promise<void> {
    await this.#run(`resume container ${containerId}`, containerId, () =>
      this.#agent.resumeContainer({ containerId }, this.#once("resume", call)),
    );
  }

  /** From now on small files that are sent at the same time go together: the guest says that it takes that (PACKED_FILES). */
  packFiles(): void {
    this.#packer ??= new FilePacker((pack, files, call) =>
      this.#run(`take ${files} files`, "", async () => {
        const options = this.#options(call);
        await this.#agent.copyFile(CopyFileRequest.fromPartial({ data: pack }), {
          ...options,
          metadata: [...(options.metadata ?? []), [PACKED_FILES, "1"]],
        });
      }),
    );
  }

  async copyFile(request: CopyFileRequest, call: Call): Promise<void> {
    if (this.#packer?.takes(request)) return this.#packer.add(request, call);
    await this.#run(`take the file ${request.path}`, "", () => this.#agent.copyFile(request, this.#options(call)));
  }

  /** Resolves with the id of a container in which a process was killed for lack of memory. */
  async oomEvent(call: Call): Promise<string> {
    const { containerId } = await this.#run("watch its memory", "", () =>
      this.#agent.getOOMEvent({}, { signal: call.signal, metadata: [[KEEP_KEY, "guest/oom"]] }),
    );
    return containerId;
  }

  /** What the container left in its termination message file. */
  async terminationLog(containerId: string, call: Call): Promise<string> {
    const request = { logType: "termination_log", containerId };
    const { data } = await this.#run(`read the termination message of ${containerId}`, containerId, () =>
      this.#agent.getDiagnosticData(request, this.#options(call)),
    );
    return data;
  }

  /** Prometheus text. */
  async metrics(call: Call): Promise<string> {
    const { metrics } = await this.#run("tell its metrics", "", () => this.#agent.getMetrics({}, this.#options(call)));
    return metrics;
  }

  /** As iptables-save prints them. */
  async ipTables(isIpv6: boolean, call: Call): Promise<Uint8Array> {
    const { data } = await this.#run("tell its iptables rules", "", () =>
      this.#agent.getIPTables({ isIpv6 }, this.#options(call)),
    );
    return data;
  }

  /** @returns what iptables-restore said */
  async setIpTables(isIpv6: boolean, data: Buffer, call: Call): Promise<Uint8Array> {
    const answer = await this.#run("set iptables rules", "", () =>
      this.#agent.setIPTables({ isIpv6, data }, this.#options(call)),
    );
    return answer.data;
  }

  #options(call: Call, timeoutMs = this.#deps.timeoutMs): CallOptions {
    return { signal: call.signal, timeoutMs };
  }

  /** For what must not happen twice: this daemon's successor gets the same answer (KEEP_KEY). */
  #once(step: string, call: Call, timeoutMs?: number): CallOptions {
    const options = this.#options(call, timeoutMs);
    return call.requestKey === undefined
      ? options
      : { ...options, metadata: [[KEEP_KEY, `${call.requestKey}/${step}`]] };
  }

  async #run<T>(action: string, containerId: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      const fault = agentFault(thrown, action, containerId);
      // To containerd NotFound means that there is no such task; what the guest misses is something else.
      throw fault.code === "not_found" ? new Fault("internal", fault.message, fault.context) : fault;
    }
  }

  async #unlessMissing(action: string, containerId: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      const fault = agentFault(thrown, action, containerId);
      if (fault.code !== "not_found") throw fault;
    }
  }
}

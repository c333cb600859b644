import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { VERSION } from "../../base/version.ts";
import type { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import { PACKED_FILES, STREAM_OFFSET } from "../../guestwire/index.ts";
import type { ServerCall, ServiceImplementation } from "../../ttrpc/index.ts";
import { memoryBytes, setClock } from "../system/machine.ts";
import type { Containers } from "./containers.ts";
import { nameExhaustion } from "./exhaustion.ts";
import { networkStats } from "./network-stats.ts";
import type { OomWatch } from "./oom-watch.ts";
import type { OutputStream } from "./output-stream.ts";
import { copyFiles } from "./packed-files.ts";
import type { AgentPaths } from "./paths.ts";
import type { Sandbox } from "./sandbox.ts";
import { STORAGE_DRIVERS, type Storages } from "./storages.ts";

export interface AgentServiceDeps {
  readonly paths: AgentPaths;
  readonly sandbox: Sandbox;
  readonly containers: Containers;
  readonly storages: Storages;
  readonly oom: OomWatch;
  /** The pod is over: switches the VM off shortly after. */
  readonly end: () => void;
}

/** Largest termination message handed out, bytes; kubelet keeps 4096. */
const MAX_TERMINATION_LOG = 64 * 1024;

type AgentImplementation = ServiceImplementation<typeof AgentServiceDefinition>;

/** Our reference agent behind the kata-agent protocol. What is left out answers Unimplemented. */
export function agentService(deps: AgentServiceDeps): AgentImplementation {
  const { containers, sandbox, storages, oom, paths } = deps;
  return {
    createSandbox: async (request) => {
      sandbox.create(request);
      return {};
    },
    destroySandbox: async (_request, call) => {
      await containers.removeAll(call);
      await storages.releaseAll();
      deps.end();
      return {};
    },
    getGuestDetails: async (request) => ({
      memBlockSizeBytes: request.memBlockSize ? memoryBlockBytes() : 0n,
      supportMemHotplugProbe: false,
      agentDetails: {
        version: VERSION,
        initDaemon: true,
        deviceHandlers: [],
        storageHandlers: [...STORAGE_DRIVERS],
        supportsSeccomp: true,
        extraFeatures: [PACKED_FILES, "seccomp"],
      },
    }),

    createContainer: async (request, call) => {
      await containers.create(request, call);
      return {};
    },
    startContainer: async ({ containerId }) => {
      await containers.get(containerId).start();
      return {};
    },
    removeContainer: async ({ containerId, timeout }, call) => {
      await containers.remove(containerId, timeout > 0 ? withDeadline(timeout * 1000, call) : call);
      return {};
    },
    pauseContainer: async ({ containerId }) => {
      await containers.get(containerId).setFrozen(true);
      return {};
    },
    resumeContainer: async ({ containerId }) => {
      await containers.get(containerId).setFrozen(false);
      return {};
    },
    updateContainer: async ({ containerId, resources }) => {
      if (resources !== undefined) await containers.get(containerId).update(resources);
      return {};
    },
    statsContainer: async ({ containerId }) => {
      const container = containers.get(containerId);
      return { cgroupStats: container.cgroup.stats(), networkStats: networkStats(container.init.pid) };
    },
    getOOMEvent: async (_request, call) => ({ containerId: await oom.next(call) }),
    getDiagnosticData: async ({ logType, containerId }) => {
      if (logType !== "termination_log") {
        throw new Fault("invalid_argument", `log type "${logType}" is not known here: termination_log is`);
      }
      const file = containers.get(containerId).terminationLog;
      if (file === undefined) throw new Fault("not_found", `container ${containerId} has no termination log mounted`);
      return { data: (await readFile(file)).toString("utf8", 0, MAX_TERMINATION_LOG) };
    },

    execProcess: async ({ containerId, execId, process }) => {
      if (execId === "" || process === undefined) {
        throw new Fault(
          "invalid_argument",
          `exec in container ${containerId}: ${execId === "" ? "exec_id" : "process"} is missing`,
        );
      }
      await containers.get(containerId).exec(execId, process);
      return {};
    },
    signalProcess: async ({ containerId, execId, signal }) => {
      containers.get(containerId).signal(execId, signal);
      return {};
    },
    waitProcess: async ({ containerId, execId }) => ({
      status: await containers.get(containerId).process(execId).exited,
    }),

    readStdout: async ({ containerId, execId, len }, call) =>
      read(containers.get(containerId).process(execId).io.stdout, len, call),
    readStderr: async ({ containerId, execId, len }, call) =>
      read(containers.get(containerId).process(execId).io.stderr, len, call),
    writeStdin: async ({ containerId, execId, data }, call) => {
      const written = await containers.get(containerId).process(execId).io.stdin.write(data, offsetOf(call));
      return { len: written };
    },
    closeStdin: async ({ containerId, execId }) => {
      await containers.get(containerId).process(execId).io.stdin.close();
      return {};
    },
    ttyWinResize: async ({ containerId, execId, row, column }) => {
      containers.get(containerId).process(execId).io.resize(row, column);
      return {};
    },

    copyFile: async (request, call) => {
      try {
        await copyFiles(`${paths.run}/shared/containers`, request, call);
      } catch (e) {
        throw nameExhaustion(e, paths, "memory");
      }
      return {};
    },
    updateEphemeralMounts: async (request) => {
      for (const storage of request.storages) storages.update(storage);
      return {};
    },
    getMetrics: async () => ({ metrics: metricsText() }),
    setGuestDateTime: async ({ Sec, Usec }) => {
      setClock(Sec * 1_000_000_000n + Usec * 1000n);
      return {};
    },
    onlineCPUMem: async () => ({}), // everything that the VM has is online from the start
  };
}

async function read(stream: OutputStream | undefined, len: number, call: ServerCall): Promise<{ data: Buffer }> {
  if (stream === undefined) return { data: Buffer.alloc(0) }; // stderr of a terminal: empty from the start
  const data = await stream.read({ offset: offsetOf(call), maxBytes: len }, call as Call);
  return { data: Buffer.from(data.buffer, data.byteOffset, data.byteLength) };
}

/** @throws Fault invalid_argument */
function offsetOf(call: ServerCall): number | undefined {
  const text = call.metadata.find(([key]) => key === STREAM_OFFSET)?.[1];
  if (text === undefined) return undefined;
  const offset = Number(text);
  if (!Number.isSafeInteger(offset) || offset < 0) {
    throw new Fault("invalid_argument", `metadata ${STREAM_OFFSET} "${text}" is not a count of bytes`);
  }
  return offset;
}

/** Smallest piece of memory that could be added; 0 where the kernel does not say. */
function memoryBlockBytes(): bigint {
  try {
    return BigInt(`0x${readFileSync("/sys/devices/system/memory/block_size_bytes", "utf8").trim()}`);
  } catch {
    return 0n; // a kernel without memory hotplug
  }
}

function metricsText(): string {
  const { rss, heapTotal, external } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  return [
    "# TYPE kata_agent_process_resident_memory_bytes gauge",
    `kata_agent_process_resident_memory_bytes ${rss}`,
    "# TYPE kata_agent_process_heap_bytes gauge",
    `kata_agent_process_heap_bytes ${heapTotal}`,
    "# TYPE kata_agent_process_external_bytes gauge",
    `kata_agent_process_external_bytes ${external}`,
    "# TYPE kata_agent_process_cpu_seconds_total counter",
    `kata_agent_process_cpu_seconds_total ${(user + system) / 1e6}`,
    "# TYPE kata_guest_memory_total_bytes gauge",
    `kata_guest_memory_total_bytes ${memoryBytes("MemTotal")}`,
    "# TYPE kata_guest_memory_available_bytes gauge",
    `kata_guest_memory_available_bytes ${memoryBytes("MemAvailable")}`,
    "",
  ].join("\n");
}

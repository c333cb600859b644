import { spawn } from "node:child_process";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { Process } from "../../src/gen/agent/oci.ts";
import { GuestDefinition } from "../../src/gen/kataremote/guest/v1/guest.ts";
import type { SandboxStatus } from "../../src/gen/kataremote/node/v1/control.ts";
import { createClient, type UnaryCaller } from "../../src/ttrpc/index.ts";
import { healthCheck, OutputReader } from "./agent-calls.ts";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { inFlight, oneByOne } from "./measure.ts";
import type { PodWorld } from "./pod-world.ts";
import { connectToVm } from "./vm-connection.ts";

const READ_MS = 3_000;
const CALLS = 1_000;
const STDOUT_MIB = 64;
const SIGKILL = 9;

/** What a running pod's guest uses, and how fast its agent is, where it really runs. @param atBoot asked once it was ready */
export async function inVmFigures(
  scope: BenchScope,
  world: PodWorld,
  pod: SandboxStatus,
  atBoot: GuestMemory,
): Promise<Figure[]> {
  const note = world.acceleration();
  const { nodeId } = await world.status();
  using agent = await connectToVm(world, nodeId, pod.sandboxId, pod.instanceId);
  const quiet = await askGuest(agent);
  scope.say("calls of the agent in the VM");
  return [
    ...memoryFigures(atBoot, quiet, note),
    ...(await callFigures(scope, agent, note)),
    ...(await readFigures(agent, pod.id, note)),
    await stdoutFigure(world, pod.id, note),
  ];
}

/** Of a guest with one sleeping container, MB. */
export interface GuestMemory {
  readonly totalMB: number;
  readonly usedMB: number;
  /** Agent and forwarder, one process. */
  readonly processMB: number;
  /** From the kernel's start until the guest listens, s. */
  readonly listeningSeconds: number;
}

export async function guestMemory(world: PodWorld, pod: SandboxStatus): Promise<GuestMemory> {
  const { nodeId } = await world.status();
  using agent = await connectToVm(world, nodeId, pod.sandboxId, pod.instanceId);
  return await askGuest(agent);
}

async function askGuest(agent: UnaryCaller): Promise<GuestMemory> {
  const info = await createClient(GuestDefinition, agent).info({}, { timeoutMs: 10_000 });
  return {
    totalMB: Number(info.memoryTotalBytes) / 1e6,
    usedMB: Number(info.memoryTotalBytes - info.memoryAvailableBytes) / 1e6,
    processMB: Number(info.guestProcessRssBytes) / 1e6,
    listeningSeconds: Number(info.listeningMs) / 1000,
  };
}

/** The guest tidies up when nothing has changed for two seconds. */
function memoryFigures(atBoot: GuestMemory, quiet: GuestMemory, note: string): Figure[] {
  const all = `all the guest has (${Math.round(quiet.totalMB)} MB)`;
  const base = { value: quiet.totalMB, text: all };
  const before = { value: atBoot.processMB, text: "that" };
  return [
    figure("start.listening", "guest kernel's start until the guest listens", quiet.listeningSeconds, "s", { note }),
    figure("start.guestUsedAtBoot", "memory used in the guest, its container just started", atBoot.usedMB, "MB", {
      ...{ base, note },
    }),
    figure("start.guestUsed", "  when it has been quiet", quiet.usedMB, "MB", { base, note }),
    figure("start.guestRssAtBoot", "of it agent and forwarder (RSS), just started", atBoot.processMB, "MB", { note }),
    figure("start.guestRss", "  when it has been quiet", quiet.processMB, "MB", { base: before, note }),
  ];
}

async function callFigures(scope: BenchScope, agent: UnaryCaller, note: string): Promise<Figure[]> {
  const { sequentialP50Us, sequentialP99Us, concurrentCallsPerSecond } = await scope.ttrpc();
  const check = healthCheck(agent);
  await oneByOne(check, CALLS);
  const single = await oneByOne(check, CALLS);
  const perSecond = await inFlight(check, 32, 4 * CALLS);
  const base = (value: number) => ({ value, text: `bare ttrpc (${value.toLocaleString("en-US")})` });
  return [
    figure("vm.check.p50", "in the VM: agent RPC, p50", single.p50Us, "us", { base: base(sequentialP50Us), note }),
    figure("vm.check.p99", "in the VM: agent RPC, p99", single.p99Us, "us", { base: base(sequentialP99Us), note }),
    figure("vm.check.rate", "in the VM: agent RPC, 32 in flight", perSecond, "calls/s", {
      base: base(concurrentCallsPerSecond),
      note,
    }),
  ];
}

/** A process of ours in the pod's container, whose output nobody else reads. */
async function readFigures(agent: UnaryCaller, containerId: string, note: string): Promise<Figure[]> {
  const client = createClient(AgentServiceDefinition, agent);
  const execId = "bench-read";
  const options = { timeoutMs: 30_000 };
  const process = Process.fromPartial({
    ...{ Args: ["cat", "/dev/zero"], Cwd: "/", Env: ["PATH=/bin:/usr/bin"] },
    User: { UID: 0, GID: 0 },
  });
  await client.execProcess(
    { containerId, execId, process, stringUser: undefined, stdinPort: 0, stdoutPort: 0, stderrPort: 0 },
    options,
  );
  try {
    const reader = new OutputReader(agent, { containerId, execId });
    await reader.throughput(32 << 10, READ_MS / 3);
    const small = await reader.throughput(32 << 10, READ_MS);
    const large = await reader.throughput(1 << 20, READ_MS);
    return [
      figure("vm.read32KiB", "in the VM: ReadStdout of cat /dev/zero, 32 KiB reads", small, "MB/s", { note }),
      figure("vm.read1MiB", "in the VM: ReadStdout of cat /dev/zero, 1 MiB reads", large, "MB/s", { note }),
    ];
  } finally {
    await client.signalProcess({ containerId, execId, signal: SIGKILL }, options);
  }
}

/** The whole way: a process in the VM, agent, tunnel, node daemon, FIFO, ctr, us. From the first byte to the last. */
async function stdoutFigure(world: PodWorld, id: string, note: string): Promise<Figure> {
  const command = ["dd", "if=/dev/zero", "bs=1M", `count=${STDOUT_MIB}`];
  const ctr = spawn("ctr", world.containerd.ctrArgs(["task", "exec", "--exec-id", "bench-stdout", id, ...command]), {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = new Promise<number | null>((resolve, reject) => ctr.once("error", reject).once("exit", resolve));
  let bytes = 0;
  let first = 0;
  let last = 0;
  for await (const chunk of ctr.stdout as AsyncIterable<Buffer>) {
    if (bytes === 0) first = performance.now();
    bytes += chunk.length;
    last = performance.now();
  }
  const code = await ended;
  if (code !== 0 || bytes !== STDOUT_MIB << 20)
    throw new Error(`ctr task exec ended with ${code} after ${bytes} bytes`);
  return figure(
    "vm.stdout",
    "in the VM: stdout of a container through containerd to ctr",
    bytes / (last - first) / 1000,
    "MB/s",
    {
      note,
    },
  );
}

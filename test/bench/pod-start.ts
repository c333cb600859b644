import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { SandboxStatus } from "../../src/gen/kataremote/node/v1/control.ts";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { guestMemory, inVmFigures } from "./in-vm.ts";
import { median } from "./measure.ts";
import { PodWorld } from "./pod-world.ts";

const PODS = 3;
const QUIET_MS = 5_000;
/** Source: USER_HZ, 100 on every architecture that Node runs on. */
const TICK_MS = 10;

/** Stages as the node daemon names them; each is what comes before its mark. */
const STAGES: readonly (readonly [string, string])[] = [
  ["created", "record and CreateVM"],
  ["address", "StartVM until the VM has an address"],
  ["connected", "boot until the TLS connection stands"],
  ["enrolled", "guest's key signed"],
  ["configured", "certificate and clock installed"],
  ["agent", "agent answers"],
  ["sandbox", "sandbox made in the guest"],
  ["rootfs", "root file system carried into the guest"],
  ["container", "container created"],
];
const FROM_START_VM = ["address", "connected", "enrolled", "configured", "agent"];

interface Sample {
  readonly stages: ReadonlyMap<string, number>;
  readonly agentReadyMs: number;
  readonly powerOnMs: number;
  readonly ctrMs: number;
}

/** A few pods one after the other, each in a VM of the default size; then calls and memory inside the last one. */
export async function podStartFigures(scope: BenchScope): Promise<Figure[]> {
  await scope.ttrpc(); // while no VM takes CPU time
  await using world = await PodWorld.start(scope, { name: "s" });
  await world.startContainerd();
  await world.startDaemon();
  const samples: Sample[] = [];
  let pod: SandboxStatus | undefined;
  for (let i = 0; i < PODS; i++) {
    scope.say(`pod ${i + 1} of ${PODS}, one after the other`);
    if (pod !== undefined) {
      await world.removePod(pod.id);
      await world.untilNoVm();
    }
    const before = performance.now();
    pod = await world.startPod(`p${i}`);
    samples.push(sampleOf(pod, world.vms()[0]?.pid, performance.now() - before));
  }
  if (pod === undefined) throw new Error("no pod was started");
  const atBoot = await guestMemory(world, pod);
  const note = world.acceleration();
  const of = (name: string, text: string, value: (s: Sample) => number): Figure =>
    figure(`start.${name}`, text, median(samples.map(value)) / 1000, "s", { note });
  scope.say(`guest left alone for ${QUIET_MS / 1000} s`);
  await delay(QUIET_MS, undefined, { signal: scope.call.signal });
  return [
    of("agentReady", `StartVM until agent ready, median of ${PODS}`, (s) => s.agentReadyMs),
    ...STAGES.map(([stage, text]) => of(`stage.${stage}`, `  ${stage}: ${text}`, (s) => s.stages.get(stage) ?? 0)),
    of("ctr", "ctr run -d as a whole", (s) => s.ctrMs),
    of("powerOn", "power-on until the first answered RPC", (s) => s.powerOnMs),
    ...(await inVmFigures(scope, world, pod, atBoot)),
  ];
}

function sampleOf(pod: SandboxStatus, vmPid: number | undefined, ctrMs: number): Sample {
  if (vmPid === undefined) throw new Error(`pod ${pod.id} has no VM process`);
  const stages = new Map<string, number>();
  let sinceCreated = 0;
  let agentReady = 0;
  // A stage comes twice when a connection had to be made anew: its times add up.
  for (const { stage, ms } of pod.timings) {
    stages.set(stage, (stages.get(stage) ?? 0) + Number(ms));
    sinceCreated += Number(ms);
    if (stage === "agent") agentReady = sinceCreated;
  }
  const agentReadyMs = FROM_START_VM.reduce((sum, stage) => sum + (stages.get(stage) ?? 0), 0);
  const createdMs = Number(pod.createdAtUnixNano / 1_000_000n);
  return { stages, agentReadyMs, ctrMs, powerOnMs: createdMs + agentReady - startedAtMs(vmPid) };
}

/** When a process began, ms since the epoch, to 10 ms. Source: proc(5), /proc/pid/stat field 22 and /proc/uptime. */
function startedAtMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const ticks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  const uptimeMs = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1000;
  return Date.now() - uptimeMs + ticks * TICK_MS;
}

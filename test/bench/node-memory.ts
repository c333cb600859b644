import { readFileSync, readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { listProcesses } from "../e2e/harness/processes.ts";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { median } from "./measure.ts";
import { PodWorld } from "./pod-world.ts";

const PODS = 10;
/** Starting at the same time: more only wait for each other under emulation. */
const AT_ONCE = 2;
/** V8 gives memory back some seconds after the last work; then the numbers stand still. */
const QUIET_MS = 15_000;
const READINGS = 5;

interface Memory {
  readonly pssMB: number;
  readonly privateMB: number;
}

/** What one node pays: its daemon and the relay process beside it. */
interface NodeMemory {
  readonly daemon: Memory;
  readonly relay: Memory;
  readonly both: Memory;
}

/** PSS of one node's two processes with 0, 1 and 10 pods, each in a real VM. */
export async function nodeMemoryFigures(scope: BenchScope): Promise<Figure[]> {
  await using world = await PodWorld.start(scope, { name: "m", adaptor: "[vm]\nvcpus = 1\nmemoryMiB = 128\n" });
  await world.startContainerd();
  const pid = await world.startDaemon();
  const relay = world.relayPid();
  const quiet = async (pods: number): Promise<NodeMemory> => {
    scope.say(`node daemon and relay with ${pods} pods left alone for ${QUIET_MS / 1000} s`);
    await delay(QUIET_MS, undefined, { signal: scope.call.signal });
    return memoryOf({ daemon: pid, relay }, scope);
  };
  const none = await quiet(0);
  await world.startPod("p0");
  const one = await quiet(1);
  const waiting = Array.from({ length: PODS - 1 }, (_, i) => `p${i + 1}`);
  const start = async (): Promise<void> => {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
      scope.say(`pod ${id} of ${PODS}`);
      await world.startPod(id);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, start));
  const ten = await quiet(PODS);

  const note = `each after ${QUIET_MS / 1000} s without work; file pages shared with ${sharers(pid)} other Node processes; VMs: ${world.acceleration()}`;
  const base = { value: none.both.pssMB, text: `none (${none.both.pssMB.toFixed(1)} MB)` };
  const perPod = (of: (m: NodeMemory) => number): number => (of(ten) - of(one)) / (PODS - 1);
  const parts = (["daemon", "relay"] as const).flatMap((part) => [
    figure(`memory.${part}.pss0`, `  ${part} without pods, PSS`, none[part].pssMB, "MB"),
    figure(`memory.${part}.pss1`, `  ${part} with 1 pod, PSS`, one[part].pssMB, "MB"),
    figure(`memory.${part}.pss10`, `  ${part} with ${PODS} pods, PSS`, ten[part].pssMB, "MB"),
    figure(
      `memory.${part}.perPod`,
      `  ${part}, PSS per added pod`,
      perPod((m) => m[part].pssMB),
      "MB",
    ),
  ]);
  return [
    figure("memory.pss0", "node daemon and relay without pods, PSS", none.both.pssMB, "MB", { note }),
    figure("memory.pss1", "node daemon and relay with 1 pod, PSS", one.both.pssMB, "MB", { base }),
    figure("memory.pss10", `node daemon and relay with ${PODS} pods, PSS`, ten.both.pssMB, "MB", { base }),
    figure(
      "memory.perPod",
      `PSS per added pod, from 1 to ${PODS}`,
      perPod((m) => m.both.pssMB),
      "MB",
    ),
    ...parts,
    figure("memory.private0", "private memory of both without pods", none.both.privateMB, "MB"),
    figure("memory.private10", `private memory of both with ${PODS} pods`, ten.both.privateMB, "MB"),
    figure(
      "memory.privatePerPod",
      "private memory per added pod",
      perPod((m) => m.both.privateMB),
      "MB",
    ),
  ];
}

async function memoryOf(pids: { readonly daemon: number; readonly relay: number }, scope: BenchScope) {
  const readings: { readonly daemon: Memory; readonly relay: Memory }[] = [];
  for (let i = 0; i < READINGS; i++) {
    readings.push({ daemon: readMemory(pids.daemon), relay: readMemory(pids.relay) });
    await delay(1_000, undefined, { signal: scope.call.signal });
  }
  const of = (part: "daemon" | "relay"): Memory => ({
    pssMB: median(readings.map((r) => r[part].pssMB)),
    privateMB: median(readings.map((r) => r[part].privateMB)),
  });
  const [daemon, relay] = [of("daemon"), of("relay")];
  const both = { pssMB: daemon.pssMB + relay.pssMB, privateMB: daemon.privateMB + relay.privateMB };
  return { daemon, relay, both };
}

/** Other processes that run the same program: PSS counts its pages in part only. */
function sharers(pid: number): number {
  const program = (p: number): string | undefined => {
    try {
      return readlinkSync(`/proc/${p}/exe`);
    } catch {
      return undefined; // ended while we looked
    }
  };
  const own = program(pid);
  const found = listProcesses().filter((p) => p.pid !== pid && program(p.pid) === own).length;
  return program(process.pid) === own ? found + 1 : found;
}

/** Source: kernel filesystems/proc.rst, smaps_rollup; kB there are KiB. */
function readMemory(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const megabytes = (field: string): number =>
    (Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]) * 1024) / 1e6;
  return { pssMB: megabytes("Pss"), privateMB: megabytes("Private_Clean") + megabytes("Private_Dirty") };
}

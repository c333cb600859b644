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

/** PSS of one node daemon with 0, 1 and 10 pods, each in a real VM. */
export async function nodeMemoryFigures(scope: BenchScope): Promise<Figure[]> {
  await using world = await PodWorld.start(scope, { name: "m", adaptor: "[vm]\nvcpus = 1\nmemoryMiB = 128\n" });
  await world.startContainerd();
  const pid = await world.startDaemon();
  const quiet = async (pods: number): Promise<Memory> => {
    scope.say(`node daemon with ${pods} pods left alone for ${QUIET_MS / 1000} s`);
    await delay(QUIET_MS, undefined, { signal: scope.call.signal });
    return memoryOf(pid, scope);
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
  const base = { value: none.pssMB, text: `none (${none.pssMB.toFixed(1)} MB)` };
  return [
    figure("memory.pss0", "node daemon without pods, PSS", none.pssMB, "MB", { note }),
    figure("memory.pss1", "node daemon with 1 pod, PSS", one.pssMB, "MB", { base }),
    figure("memory.pss10", `node daemon with ${PODS} pods, PSS`, ten.pssMB, "MB", { base }),
    figure("memory.perPod", `PSS per added pod, from 1 to ${PODS}`, (ten.pssMB - one.pssMB) / (PODS - 1), "MB"),
    figure("memory.private0", "node daemon without pods, private memory", none.privateMB, "MB"),
    figure("memory.private10", `node daemon with ${PODS} pods, private memory`, ten.privateMB, "MB"),
    figure("memory.privatePerPod", "private memory per added pod", (ten.privateMB - one.privateMB) / (PODS - 1), "MB"),
  ];
}

async function memoryOf(pid: number, scope: BenchScope): Promise<Memory> {
  const readings: Memory[] = [];
  for (let i = 0; i < READINGS; i++) {
    readings.push(readMemory(pid));
    await delay(1_000, undefined, { signal: scope.call.signal });
  }
  return {
    pssMB: median(readings.map((r) => r.pssMB)),
    privateMB: median(readings.map((r) => r.privateMB)),
  };
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

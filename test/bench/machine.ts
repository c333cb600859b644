import { arch, cpus, loadavg, release, totalmem } from "node:os";
import { VERSION } from "../../src/base/version.ts";

/** Where the numbers come from. */
export interface MachineFacts {
  readonly startedAt: string;
  readonly version: string;
  readonly node: string;
  readonly arch: string;
  readonly kernel: string;
  readonly cpu: string;
  readonly cpuCount: number;
  readonly memoryGiB: number;
  /** Over the minute before: above 0.5 somebody else was busy and the numbers are worse than they could be. */
  readonly load: number;
}

export function machineFacts(): { readonly facts: MachineFacts; readonly line: string } {
  const facts: MachineFacts = {
    startedAt: new Date().toISOString(),
    version: VERSION,
    node: process.versions.node,
    arch: arch(),
    kernel: release(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cpuCount: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    load: Number(loadavg()[0]?.toFixed(1)),
  };
  const { version, node, kernel, cpu, cpuCount, memoryGiB, load } = facts;
  const line = `kata-remote ${version}, Node ${node}, Linux ${kernel}, ${cpuCount} x ${cpu}, ${memoryGiB} GiB, load before: ${load}`;
  return { facts, line };
}

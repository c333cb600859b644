import { Fault } from "../../base/fault.ts";
import type { Phase, SandboxRecord } from "./sandbox-record.ts";

/**
 * Every step that a sandbox's record may take, and why. Both stores refuse any other. src/adaptor/README.md draws it,
 * and a test compares the two.
 */
export const TRANSITIONS: readonly (readonly [from: Phase, to: Phase, why: string])[] = [
  ["prepared", "creating", "StartVM"],
  ["prepared", "ready", "node reports it after a loss of the store"],
  ["prepared", "stopping", "StopVM after a loss of the store"],
  ["prepared", "gone", "StopVM"],
  ["creating", "booting", "address known"],
  ["creating", "ready", "node reports it after a loss of the store"],
  ["creating", "failed", "start gave up"],
  ["creating", "stopping", "StopVM"],
  ["booting", "ready", "ReportReady"],
  ["booting", "failed", "start gave up"],
  ["booting", "lost", "instance ended by itself"],
  ["booting", "stopping", "StopVM"],
  ["ready", "lost", "instance ended by itself"],
  ["ready", "stopping", "StopVM"],
  ["lost", "stopping", "StopVM or grace over"],
  ["lost", "gone", "StopVM, no instance"],
  ["failed", "stopping", "StopVM"],
  ["failed", "gone", "StopVM, no instance left"],
  ["stopping", "gone", "instance deleted"],
];

/** In an order in which records move on, so that a pass that looks at one after the other misses none that moves. */
export const PHASES: readonly Phase[] = [
  ...(["prepared", "creating", "booting", "ready"] as const),
  ...(["lost", "failed", "stopping", "gone"] as const),
];

/** In these a sandbox takes room. A failed one has at most a leftover that is being removed. */
export const LIVE_PHASES: readonly Phase[] = ["prepared", "creating", "booting", "ready", "stopping", "lost"];
/** From these a sandbox never comes back. */
export const ENDING_PHASES: readonly Phase[] = ["stopping", "gone"];

const LEGAL: ReadonlySet<string> = new Set(TRANSITIONS.map(([from, to]) => `${from} ${to}`));

/** Whether a record in `from` may be written as `to`; a change within a phase always may. */
export function mayFollow(from: Phase, to: Phase): boolean {
  return from === to || LEGAL.has(`${from} ${to}`);
}

/** @throws Fault internal: whoever asked for it did not look at the record */
export function checkTransition(record: SandboxRecord, to: Phase): void {
  if (mayFollow(record.phase, to)) return;
  throw new Fault("internal", `sandbox ${record.id} cannot become ${to}: it is ${record.phase}`, {
    sandboxId: record.id,
  });
}

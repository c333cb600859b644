import type { SandboxChange, SandboxRecord } from "./sandbox-record.ts";

/** The record after a change; a field that became `undefined` is dropped when it is written as JSON. */
export function changed(current: SandboxRecord, change: SandboxChange, now: Date): SandboxRecord {
  const moved = change.phase !== undefined && change.phase !== current.phase;
  return {
    ...current,
    ...change,
    revision: current.revision + 1,
    phaseSince: moved ? now.toISOString() : current.phaseSince,
  } as SandboxRecord;
}

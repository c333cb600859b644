import { checkTransition } from "./phase-table.ts";
import { formOf } from "./record-version.ts";
import type { SandboxChange, SandboxRecord } from "./sandbox-record.ts";

/**
 * The record after a change; a field that became `undefined` is dropped when it is written as JSON.
 * @throws Fault internal for a step that the phase table does not have
 */
export function changed(current: SandboxRecord, change: SandboxChange, now: Date): SandboxRecord {
  const moved = change.phase !== undefined && change.phase !== current.phase;
  if (moved && change.phase !== undefined) checkTransition(current, change.phase);
  return {
    ...current,
    ...change,
    form: formOf(current),
    revision: current.revision + 1,
    phaseSince: moved ? now.toISOString() : current.phaseSince,
  } as SandboxRecord;
}

/** A new record as it is written. */
export function inserted(record: Omit<SandboxRecord, "revision" | "phaseSince">, now: Date): SandboxRecord {
  return { ...record, form: formOf(undefined), revision: 1, phaseSince: now.toISOString() };
}

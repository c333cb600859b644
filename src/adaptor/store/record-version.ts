import { Fault } from "../../base/fault.ts";
import type { SandboxRecord } from "./sandbox-record.ts";

/**
 * Form of sandbox records. During a rolling upgrade two versions share one store, so the rule for changing the form is:
 * a version only adds optional fields, raises FORM, and reads the form before it; an older adaptor keeps the fields that
 * it does not know (a change is written over the record as it was read). A form two steps ahead is refused.
 *
 * Form 1 (no `form` in the record): as of the skeleton. Form 2 adds madeAfter and rebuiltAt.
 */
export const FORM = 2;

/**
 * A record as this version understands it, from this form, the one before and the one after.
 * @throws Fault failed_precondition when it is written in a form that is further away
 */
export function readRecord(body: string): SandboxRecord {
  const record = JSON.parse(body) as SandboxRecord;
  const form = record.form ?? 1;
  if (form <= FORM + 1) return record;
  throw new Fault(
    "failed_precondition",
    `the record of sandbox ${record.id} has form ${form}, this adaptor reads up to ${FORM + 1}: upgrade one version at a time`,
    { sandboxId: record.id },
  );
}

/** What is written: a form from the future stays, its fields are still in it. */
export function formOf(current: SandboxRecord | undefined): number {
  return Math.max(FORM, current?.form ?? 1);
}

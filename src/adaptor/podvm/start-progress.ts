import type { OperationRecord, SandboxRecord } from "../store/index.ts";

/** One event of a start, as the node is told. */
export type StartProgress = { readonly operationId: string; readonly elapsedMs: number } & (
  | { readonly stage: "accepted" }
  | { readonly stage: "instance"; readonly instanceId: string }
  | {
      readonly stage: "address";
      readonly instanceId: string;
      readonly addresses: readonly string[];
      readonly port: number;
    }
  | { readonly stage: "failed" | "waiting"; readonly code: string; readonly message: string }
);

/** It failed, and is tried again. */
export type WaitingProgress = StartProgress & { readonly stage: "waiting" };

const ENDED: ReadonlySet<SandboxRecord["phase"]> = new Set(["stopping", "gone", "failed", "lost"]);

/**
 * Everything that a record says about its start, in order: who joins late gets the same events as who was there. The
 * last one is `address` or `failed` when the start is over.
 */
export function progressOf(record: SandboxRecord, now: Date): StartProgress[] {
  const began = record.intent === undefined ? now : new Date(record.intent.created);
  const common = {
    operationId: record.intent?.createOperation ?? "",
    elapsedMs: Math.max(0, now.getTime() - began.getTime()),
  };
  if (ENDED.has(record.phase)) {
    const { code, message } = record.lastFault ?? {
      code: "cancelled",
      message: `the sandbox is ${record.phase}: ${record.stopReason ?? "it was stopped"}`,
    };
    return [{ ...common, stage: "failed", code, message }];
  }
  const events: StartProgress[] = [{ ...common, stage: "accepted" }];
  const { instance } = record;
  if (instance === undefined) return events;
  events.push({ ...common, stage: "instance", instanceId: instance.id });
  if (instance.addresses.length === 0) return events;
  const { addresses, port } = instance;
  events.push({ ...common, stage: "address", instanceId: instance.id, addresses, port });
  return events;
}

/** What a start that is tried again failed with last; undefined when it has not failed yet, or is over. */
export function waitingOf(operation: OperationRecord | undefined, now: Date): WaitingProgress | undefined {
  const { fault, state, id, submittedAt } = operation ?? {};
  if (fault === undefined || id === undefined || (state !== "queued" && state !== "running")) return undefined;
  const elapsedMs = Math.max(0, now.getTime() - new Date(submittedAt ?? now).getTime());
  return { operationId: id, elapsedMs, stage: "waiting", code: fault.code, message: fault.message };
}

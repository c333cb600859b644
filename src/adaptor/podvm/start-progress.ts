import type { SandboxRecord } from "../store/index.ts";

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
  | { readonly stage: "failed"; readonly code: string; readonly message: string }
);

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

import { type ChaosCase, CREATE_STEPS, DAEMON_DEATH, DELETE_STEPS, endsNode, endsPod, type Hit } from "./chaos-case.ts";
import { describeFault, type Fault } from "./faults.ts";
import type { StoreKind } from "./world-config.ts";

/** What a case has beside its hits. */
export type Details = Partial<Omit<ChaosCase, "hits" | "store">>;

export const ALL_STEPS = [...CREATE_STEPS, ...DELETE_STEPS];
/** While these are reached, the pod's VM is the newest that lives. */
export const STEPS_WITH_VM = ALL_STEPS.slice(ALL_STEPS.indexOf("run-effect"), ALL_STEPS.indexOf("end-effect"));
/** Until its creation is answered, a pod that is ended was not made. */
export const BEFORE_ANSWER = new Set<string>(["vm-seen", ...CREATE_STEPS.slice(0, CREATE_STEPS.indexOf("created"))]);

const SETUPS = { one: "", first: ", 2 adaptors", balanced: ", 2 adaptors, balanced" } as const;

/** A case of one fault; what it expects follows from the fault unless it is said. */
export function at(step: string, fault: Fault, store: StoreKind, more: Details = {}): ChaosCase {
  return hit([{ at: step, fault }], store, more);
}

export function hit(hits: readonly Hit[], store: StoreKind, more: Details = {}): ChaosCase {
  const ends = hits.find(({ fault }) => endsPod(fault));
  const create =
    ends === undefined || DELETE_STEPS.some((s) => s === ends.at)
      ? hits.some(interruptsCalls)
        ? "either"
        : "succeeds"
      : BEFORE_ANSWER.has(ends.at)
        ? "fails"
        : "either";
  return {
    name: `${store}${SETUPS[more.adaptors ?? "one"]}: ${hits.map(({ at: step, fault }) => `${describeFault(fault)} at ${step}`).join(", ")}`,
    ...{ store, hits, create },
    bystander: hits.some(({ fault }) => endsNode(fault)) ? "ends" : "runs",
    ...more,
  };
}

/** A call that is on its way when the daemon dies is not answered, whoever holds the connection. */
function interruptsCalls({ at: step, fault }: Hit): boolean {
  return fault.kind === "kill" && fault.whom === "node" && DAEMON_DEATH === "unnoticed" && BEFORE_ANSWER.has(step);
}

export function kill(whom: (Fault & { kind: "kill" })["whom"], downMs = 300): Fault {
  return { kind: "kill", whom, downMs };
}

export const QUICK = { quick: true } as const;
/** Marks those of some steps as part of the short run. */
export const quickAt = (steps: readonly string[], step: string): Details => (steps.includes(step) ? QUICK : {});

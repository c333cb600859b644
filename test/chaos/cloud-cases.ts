import { type Details, hit, kill, QUICK } from "./case-builders.ts";
import type { ChaosCase, Hit, Trouble } from "./chaos-case.ts";

/** A case in which the cloud misbehaves, and perhaps something else. */
export function cloud(
  name: string,
  troubles: readonly Trouble[],
  more: Details & { readonly hits?: readonly Hit[] } = {},
): ChaosCase {
  return { ...hit(more.hits ?? [], "embedded"), troubles, ...more, name: `cloud: ${name}` };
}

type Request = Trouble & { readonly kind: "refuse" | "delay" | "after-effect" };
type Refusal = Extract<Request, { kind: "refuse" }>["how"];
type LostAnswer = Extract<Request, { kind: "after-effect" }>["how"];
const DURING = { launch: "create", look: "create", end: "delete" } as const;

const refuse = (what: Request["what"], how: Refusal, times: number, retryAfterS?: number): Trouble => ({
  ...{ during: DURING[what], kind: "refuse", what, how, times },
  ...(retryAfterS === undefined ? {} : { retryAfterS }),
});
const delay = (what: Request["what"], ms: number): Trouble => ({ during: DURING[what], kind: "delay", what, ms });
/** Its answer is lost, late or wrong. */
export const afterEffect = (what: Request["what"], how: LostAnswer, times = 1): Trouble => ({
  ...{ during: DURING[what], kind: "after-effect", what, how, times },
});
export const hidden = (looks: number): Trouble => ({ during: "create", kind: "hidden", looks });
const TWICE: Trouble = { during: "create", kind: "twice" };
export const KILLED_BEFORE_ANSWER: readonly Hit[] = [{ at: "run-effect", fault: kill("adaptor") }];

/** That a young VM is not shown means nothing for a minute, with Azure: it may have been deleted, or be new. */
const UNSURE = { boundMs: 120_000 } as const;

/** One pod, and a cloud that misbehaves. */
export const CLOUD_CASES: readonly ChaosCase[] = [
  cloud("slow", [delay("launch", 2_500), delay("end", 2_500)], QUICK),
  cloud("throttles launches", [refuse("launch", "throttle", 3)], QUICK),
  cloud("throttles launches and says for how long", [refuse("launch", "throttle", 2, 2)]),
  cloud("throttles launches for longer than one attempt", [refuse("launch", "throttle", 9)], { boundMs: 60_000 }),
  cloud("answers 429", [refuse("launch", "429", 2), refuse("end", "429", 2)]),
  cloud("throttles deletions", [refuse("end", "throttle", 6)], QUICK),
  cloud("throttles listings while the adaptor starts", [refuse("look", "throttle", 12)], {
    hits: KILLED_BEFORE_ANSWER,
  }),
  cloud("breaks on launches", [refuse("launch", "error", 2)]),
  cloud("breaks on deletions", [refuse("end", "error", 6)]),
  cloud("breaks on listings while the adaptor starts", [refuse("look", "error", 12)], { hits: KILLED_BEFORE_ANSWER }),
  cloud("gives no answer to a launch", [afterEffect("launch", "drop")], QUICK),
  cloud("gives no answer to any attempt of a launch", [afterEffect("launch", "drop", 4)]),
  cloud("answers a launch too late", [afterEffect("launch", "late")]),
  cloud("launches and answers 500", [afterEffect("launch", "error", 2)]),
  cloud("gives no answer to a deletion", [afterEffect("end", "drop")], UNSURE),
  cloud("answers a deletion too late", [afterEffect("end", "late")], UNSURE),
  cloud("deletes and answers 500", [afterEffect("end", "error", 3)], UNSURE),
  cloud("gets every request twice", [TWICE], QUICK),
  cloud("gets every request twice and the adaptor is killed", [TWICE], {
    hits: KILLED_BEFORE_ANSWER,
  }),
  cloud("has no room for the best type", [{ during: "create", kind: "no-room", where: "best" }]),
  cloud("has no room in the zone that is tried first", [{ during: "create", kind: "no-room", where: "first-zone" }]),
  cloud("never says that a VM is made, which boots", [{ during: "create", kind: "stuck-creating", times: 1 }]),
  cloud("has no room at all", [{ during: "create", kind: "no-room", where: "everywhere" }], {
    create: "fails",
    reason: /capacity/i,
  }),
  cloud("is at its quota", [{ during: "create", kind: "quota", vms: 1 }], {
    create: "fails",
    quick: true,
    reason: /limit|quota/i,
  }),
  cloud("does not show what it has just made", [hidden(8)]),
  cloud("does not show what it has just made, and the adaptor is killed", [hidden(8)], {
    hits: KILLED_BEFORE_ANSWER,
    quick: true,
  }),
  cloud("does not show what it has just made, and node and adaptor are killed", [hidden(8)], {
    ...hit([...KILLED_BEFORE_ANSWER, { at: "run-effect", fault: kill("node") }], "embedded"),
  }),
  cloud("gives no answer to a launch, and the adaptor is killed", [afterEffect("launch", "drop")], {
    hits: KILLED_BEFORE_ANSWER,
  }),
  cloud(
    "gives no answer to a launch, and the node is killed",
    [afterEffect("launch", "drop", 4)],
    hit([{ at: "run-effect", fault: kill("node") }], "embedded"),
  ),
  cloud("takes long to end VMs", [{ during: "delete", kind: "slow-end", ms: 3_000 }]),
];

import { type ChaosCase, CREATE_STEPS, DELETE_STEPS, endsNode, endsPod, type Hit } from "./chaos-case.ts";
import { describeFault, type Fault } from "./faults.ts";
import type { AdaptorSetup } from "./world-config.ts";

/** Numbers from 0 up to 1 that a seed decides. Source: the public-domain generator mulberry32. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const STEPS = [...CREATE_STEPS, ...DELETE_STEPS];
const WITH_VM = { from: STEPS.indexOf("run-effect"), to: STEPS.indexOf("end-effect") };

const LAUNCHING = new Set(["prepared", "run-asked", "run-effect", "accepted"]);

/** Cases of one to three faults at random steps, under a cloud that may misbehave. The same seed gives the same ones. */
export function randomCases(seed: number, count: number): readonly ChaosCase[] {
  return Array.from({ length: count }, (_, n) => randomCase(seed + n));
}

function randomCase(seed: number): ChaosCase {
  const next = randomNumbers(seed);
  const pick = <T>(choices: readonly T[]): T => choices[Math.floor(next() * choices.length)] as T;
  const store = pick(["embedded", "redis"] as const);
  const adaptors = store === "redis" ? pick(["one", "first", "balanced", "balanced"] as const) : "one";
  const hits: Hit[] = [];
  const wanted = 1 + Math.floor(next() * 3);
  while (hits.length < wanted) {
    const fault = pick(faults(store, adaptors, Math.floor(next() * 3_000)));
    // Redis is one server with one fate; two that fight for it say nothing about us.
    if (/redis/.test(describeFault(fault)) && hits.some((h) => /redis/.test(describeFault(h.fault)))) continue;
    if (endsNode(fault) && hits.some((h) => endsNode(h.fault))) continue;
    const n =
      fault.kind === "kill-vm"
        ? WITH_VM.from + Math.floor(next() * (WITH_VM.to - WITH_VM.from))
        : Math.floor(next() * STEPS.length);
    hits.push({ at: STEPS[n] as string, fault });
  }
  // With another fault the pod's VM may be gone when one is to be killed: the bystander's would be hit instead.
  const single = hits.some((h) => h.fault.kind === "kill-vm")
    ? hits.filter((h) => h.fault.kind === "kill-vm").slice(0, 1)
    : hits;
  const hidden = next() < 0.3;
  return {
    name: `random ${seed} ${store}, adaptors: ${adaptors}: ${single.map((h) => `${describeFault(h.fault)} at ${h.at}`).join(", ")}${hidden ? ", new VMs not shown" : ""}`,
    ...{ store, adaptors, hits: single },
    create: single.some((h) => endsPod(h.fault) || /redis-|pause|kill node/.test(describeFault(h.fault)))
      ? "either"
      : "succeeds",
    bystander: single.some((h) => endsNode(h.fault)) ? "ends" : "runs",
    ...(hidden ? { troubles: [{ during: "create", kind: "hidden", looks: 6 }] } : {}),
    ...(single.some((h) => h.fault.kind === "redis-old")
      ? { snapshot: pick(["before-bystander", "after-bystander"] as const) }
      : {}),
    // What the store forgets as it is launched is nobody's until an operator says so.
    operator: single.some(({ fault, at }) => /redis-(empty|old)/.test(fault.kind) && LAUNCHING.has(at)),
    boundMs: 60_000,
  };
}

function faults(store: ChaosCase["store"], adaptors: AdaptorSetup, downMs: number): readonly Fault[] {
  const second = adaptors === "one" ? [] : (["adaptor-2"] as const);
  const always: readonly Fault[] = [
    ...(["adaptor", "node", ...second] as const).flatMap((whom): Fault[] => [
      { kind: "kill", whom, downMs },
      { kind: "pause", whom, downMs },
    ]),
    { kind: "kill", whom: "adaptor", downMs: 0 },
    { kind: "kill-vm", noticed: true },
    { kind: "kill-vm", noticed: false },
    { kind: "kill", whom: "relay", downMs: 0 },
    { kind: "reboot-node" },
    { kind: "repeat-calls" },
  ];
  if (store === "embedded") return always;
  return [
    ...always,
    ...(adaptors === "one"
      ? []
      : ([
          { kind: "kill-leader", downMs },
          { kind: "upgrade", downMs: 300 },
        ] as const)),
    { kind: "kill", whom: "redis", downMs },
    { kind: "pause", whom: "redis", downMs },
    { kind: "redis-empty" },
    { kind: "redis-old" },
    { kind: "redis-failover" },
  ];
}

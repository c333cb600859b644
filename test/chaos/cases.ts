import type { InjectedFault } from "../clouds/ec2/index.ts";
import {
  type ChaosCase,
  CREATE_STEPS,
  DAEMON_DEATH,
  DELETE_STEPS,
  endsNode,
  endsPod,
  type Hit,
  type Trouble,
} from "./chaos-case.ts";
import { describeFault, type Fault } from "./faults.ts";
import type { StoreKind } from "./world.ts";

type Details = Partial<Omit<ChaosCase, "hits" | "store">>;

const ALL_STEPS = [...CREATE_STEPS, ...DELETE_STEPS];
/** While these are reached, the pod's VM is the newest that lives. */
const STEPS_WITH_VM = ALL_STEPS.slice(ALL_STEPS.indexOf("run-effect"), ALL_STEPS.indexOf("end-effect"));
/** Until its creation is answered, a pod that is ended was not made. */
const BEFORE_ANSWER = new Set<string>(["vm-seen", ...CREATE_STEPS.slice(0, CREATE_STEPS.indexOf("created"))]);

/** A case of one fault; what it expects follows from the fault unless it is said. */
function at(step: string, fault: Fault, store: StoreKind, more: Details = {}): ChaosCase {
  return hit([{ at: step, fault }], store, more);
}

function hit(hits: readonly Hit[], store: StoreKind, more: Details = {}): ChaosCase {
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
    name: `${store}: ${hits.map(({ at: step, fault }) => `${describeFault(fault)} at ${step}`).join(", ")}`,
    ...{ store, hits, create },
    bystander: hits.some(({ fault }) => endsNode(fault)) ? "ends" : "runs",
    ...more,
  };
}

/** A call that is on its way when the daemon dies is not answered, whoever holds the connection. */
function interruptsCalls({ at: step, fault }: Hit): boolean {
  return fault.kind === "kill" && fault.whom === "node" && DAEMON_DEATH === "unnoticed" && BEFORE_ANSWER.has(step);
}

function kill(whom: "adaptor" | "node" | "relay" | "redis", downMs = 300): Fault {
  return { kind: "kill", whom, downMs };
}

const QUICK = { quick: true } as const;
const quickAt = (steps: readonly string[], step: string): Details => (steps.includes(step) ? QUICK : {});

const adaptorKilled = (["embedded", "redis"] as const).flatMap((store) =>
  ALL_STEPS.map((step) =>
    at(
      step,
      kill("adaptor"),
      store,
      quickAt(store === "embedded" ? ["run-asked", "run-effect", "end-asked"] : ["accepted"], step),
    ),
  ),
);

const daemonKilled = ALL_STEPS.map((step) =>
  at(step, kill("node"), "embedded", quickAt(["run-effect", "started", "node-stopping"], step)),
);

/** It ends every pod of the node, and nothing of them may stay. */
const relayKilled = ALL_STEPS.map((step) =>
  at(step, kill("relay", 0), "embedded", { ...quickAt(["accepted", "started"], step), create: "either" }),
);

const redisKilled = ALL_STEPS.map((step) =>
  at(step, kill("redis", 1_000), "redis", quickAt(["run-asked", "stop-recorded"], step)),
);

const vmKilled = [true, false].flatMap((noticed) =>
  STEPS_WITH_VM.map((step) =>
    at(step, { kind: "kill-vm", noticed }, "embedded", {
      ...(noticed ? quickAt(["accepted", "started"], step) : quickAt(["sandbox-asked"], step)),
      // The adaptor may make another one in its place.
      ...(BEFORE_ANSWER.has(step) ? { create: "either", reason: /instance|VM|guest/ } : {}),
    }),
  ),
);

const paused: ChaosCase[] = [
  ...["run-asked", "accepted", "stop-recorded"].map((step) =>
    at(step, { kind: "pause", whom: "redis", downMs: 4_000 }, "redis", quickAt(["accepted"], step)),
  ),
  ...["run-asked", "started", "kill-asked"].map((step) =>
    // Longer than a node is patient: a creation may be given up, nothing else.
    at(step, { kind: "pause", whom: "redis", downMs: 60_000 }, "redis", { create: "either" }),
  ),
  ...["run-effect", "accepted", "end-asked"].map((step) =>
    at(step, { kind: "pause", whom: "adaptor", downMs: 4_000 }, "redis"),
  ),
  ...["accepted", "sandbox-asked", "kill-asked"].map((step) =>
    at(step, { kind: "pause", whom: "node", downMs: 4_000 }, "embedded", quickAt(["accepted"], step)),
  ),
];

/** Moments at which the store loses what it knew. */
/** A VM that the store forgets before it is somebody's: no node can claim it either. */
const NOBODYS = new Set(["run-asked", "accepted"]);
const DATA_STEPS = [
  "create-asked",
  "run-asked",
  "accepted",
  "created",
  "started",
  "kill-asked",
  "end-asked",
  "deleted",
];

const redisData: ChaosCase[] = [
  ...DATA_STEPS.map((step) =>
    at(step, { kind: "redis-empty" }, "redis", {
      create: "either",
      operator: NOBODYS.has(step),
      ...quickAt(["started"], step),
    }),
  ),
  ...DATA_STEPS.flatMap((step) =>
    (["before-bystander", "after-bystander"] as const).map((snapshot) => {
      const made = at(step, { kind: "redis-old" }, "redis", {
        create: "either",
        operator: NOBODYS.has(step),
        snapshot,
      });
      return {
        ...made,
        name: `${made.name}, copied ${snapshot}`,
        quick: step === "started" && snapshot === "before-bystander",
      };
    }),
  ),
  ...["run-asked", "accepted", "created", "kill-asked", "end-asked"].map((step) =>
    at(step, { kind: "redis-failover" }, "redis", { create: "either", ...quickAt(["accepted"], step) }),
  ),
  hit(
    [
      { at: "started", fault: kill("adaptor", 2_500) },
      { at: "started", fault: { kind: "redis-empty" } },
    ],
    "redis",
    { create: "either" },
  ),
];

const nodeGone: ChaosCase[] = [
  ...[
    "create-asked",
    "run-asked",
    "run-effect",
    "accepted",
    "created",
    "started",
    "kill-asked",
    "stop-recorded",
  ].flatMap((step) => [
    at(step, { kind: "reboot-node" }, "embedded", { create: "either", ...quickAt(["accepted"], step) }),
    at(step, { kind: "lose-node" }, "embedded", { create: "either", boundMs: 60_000, ...quickAt(["started"], step) }),
  ]),
  hit(
    [
      { at: "started", fault: kill("adaptor", 3_000) },
      { at: "started", fault: { kind: "reboot-node" } },
    ],
    "embedded",
    { create: "either" },
  ),
];

const stopsNotDelivered: ChaosCase[] = [
  at("kill-asked", kill("adaptor", 4_000), "embedded", QUICK),
  hit(
    [
      { at: "kill-asked", fault: kill("adaptor", 4_000) },
      { at: "node-stopping", fault: kill("node") },
    ],
    "embedded",
  ),
  hit(
    [
      { at: "run-effect", fault: kill("adaptor", 3_000) },
      { at: "run-effect", fault: kill("node") },
    ],
    "embedded",
    QUICK,
  ),
  hit(
    [
      { at: "run-asked", fault: kill("adaptor", 3_000) },
      { at: "run-asked", fault: { kind: "reboot-node" } },
    ],
    "embedded",
    { create: "either" },
  ),
];

const repeatedCalls = ["prepared", "run-effect", "accepted", "started", "stop-recorded", "end-asked"].map((step) =>
  at(step, { kind: "repeat-calls" }, "embedded", quickAt(["run-effect"], step)),
);

/** A case in which the cloud misbehaves, and perhaps something else. */
function cloud(
  name: string,
  troubles: readonly Trouble[],
  more: Details & { readonly hits?: readonly Hit[] } = {},
): ChaosCase {
  return { ...hit(more.hits ?? [], "embedded"), troubles, ...more, name: `cloud: ${name}` };
}

function error(code: string, status: number, more: Partial<InjectedFault> = {}): InjectedFault {
  return { error: { code, message: `${code} for a test`, status }, ...more };
}

const throttled = error("RequestLimitExceeded", 503);
const broken = error("InternalError", 500);
const NO_ANSWER: InjectedFault = { afterEffect: true, drop: true };
const LATE_ANSWER: InjectedFault = { afterEffect: true, delayMs: 6_000 };
const EFFECT_THEN_500 = { ...broken, afterEffect: true };
const run = (fault: InjectedFault, times = 1): Trouble => ({
  during: "create",
  inject: [{ ...fault, action: "RunInstances", times }],
});
const end = (fault: InjectedFault, times = 1): Trouble => ({
  during: "delete",
  inject: [{ ...fault, action: "TerminateInstances", times }],
});
const look = (fault: InjectedFault, times: number): Trouble => ({
  during: "create",
  inject: [{ ...fault, action: "DescribeInstances", times }],
});
const KILLED_BEFORE_ANSWER: readonly Hit[] = [{ at: "run-effect", fault: kill("adaptor") }];

const cloudTroubles: ChaosCase[] = [
  cloud("slow", [run({ delayMs: 2_500 }), end({ delayMs: 2_500 })], QUICK),
  cloud("throttles launches", [run(throttled, 3)], QUICK),
  cloud("throttles launches and says for how long", [
    run({ error: { code: "RequestLimitExceeded", message: "x", status: 503, retryAfter: "2" } }, 2),
  ]),
  cloud("throttles launches for longer than one attempt", [run(throttled, 9)], { boundMs: 60_000 }),
  cloud("answers 429", [
    run(error("TooManyRequestsException", 429), 2),
    end(error("TooManyRequestsException", 429), 2),
  ]),
  cloud("throttles deletions", [end(throttled, 6)], QUICK),
  cloud("throttles listings while the adaptor starts", [look(throttled, 12)], { hits: KILLED_BEFORE_ANSWER }),
  cloud("breaks on launches", [run(broken, 2)]),
  cloud("breaks on deletions", [end(broken, 6)]),
  cloud("breaks on listings while the adaptor starts", [look(broken, 12)], { hits: KILLED_BEFORE_ANSWER }),
  cloud("gives no answer to a launch", [run(NO_ANSWER)], QUICK),
  cloud("gives no answer to any attempt of a launch", [run(NO_ANSWER, 4)]),
  cloud("answers a launch too late", [run(LATE_ANSWER)]),
  cloud("launches and answers 500", [run(EFFECT_THEN_500, 2)]),
  cloud("gives no answer to a deletion", [end(NO_ANSWER)]),
  cloud("answers a deletion too late", [end(LATE_ANSWER)]),
  cloud("deletes and answers 500", [end(EFFECT_THEN_500, 3)]),
  cloud("gets every request twice", [{ during: "create", repeats: true }], QUICK),
  cloud("gets every request twice and the adaptor is killed", [{ during: "create", repeats: true }], {
    hits: KILLED_BEFORE_ANSWER,
  }),
  cloud("has no room for the best type", [
    { during: "create", knobs: { short: new Set(["m6a.large/*", "c6a.large/*"]) } },
  ]),
  cloud("has no room at all", [{ during: "create", knobs: { short: new Set(["*/*"]) } }], {
    create: "fails",
    reason: /capacity/i,
  }),
  cloud("is at its quota", [{ during: "create", knobs: { vcpuQuota: new Map([["Standard/on-demand", 2]]) } }], {
    create: "fails",
    quick: true,
    reason: /limit|quota/i,
  }),
  cloud("does not show what it has just made", [{ during: "create", knobs: { hiddenDescribes: 8 } }]),
  cloud(
    "does not show what it has just made, and the adaptor is killed",
    [{ during: "create", knobs: { hiddenDescribes: 8 } }],
    {
      hits: KILLED_BEFORE_ANSWER,
      quick: true,
    },
  ),
  cloud(
    "does not show what it has just made, and node and adaptor are killed",
    [{ during: "create", knobs: { hiddenDescribes: 8 } }],
    {
      ...hit([...KILLED_BEFORE_ANSWER, { at: "run-effect", fault: kill("node") }], "embedded"),
    },
  ),
  cloud("gives no answer to a launch, and the adaptor is killed", [run(NO_ANSWER)], { hits: KILLED_BEFORE_ANSWER }),
  cloud(
    "gives no answer to a launch, and the node is killed",
    [run(NO_ANSWER, 4)],
    hit([{ at: "run-effect", fault: kill("node") }], "embedded"),
  ),
  cloud("takes long to end VMs", [{ during: "delete", knobs: { shuttingDownMs: 3_000 } }]),
];

/** Pods that are made at once, and their VMs perhaps in one request. */
const together: ChaosCase[] = [
  ...["run-asked", "run-effect", "accepted", "configured", "end-asked"].flatMap((step) => [
    at(step, kill("adaptor"), "redis", quickAt(["run-effect"], step)),
    at(step, kill("node"), "redis", step === "end-asked" ? {} : { create: "either" }),
    at(step, kill("redis", 1_000), "redis"),
  ]),
  hit(
    [
      { at: "run-effect", fault: kill("adaptor") },
      { at: "run-effect", fault: kill("node") },
    ],
    "embedded",
    { create: "either" },
  ),
  cloud("gives no answer to launches", [run(NO_ANSWER, 2)]),
  cloud("gives no answer to launches, and the adaptor is killed", [run(NO_ANSWER, 2)], { hits: KILLED_BEFORE_ANSWER }),
  cloud("has room for some", [{ during: "create", knobs: { vcpuQuota: new Map([["Standard/on-demand", 6]]) } }], {
    create: "either",
  }),
  cloud("does not show what it has just made", [{ during: "create", knobs: { hiddenDescribes: 12 } }], {
    hits: KILLED_BEFORE_ANSWER,
  }),
].map((chaos) => ({ ...chaos, name: `4 pods, ${chaos.name}`, pods: 4 }));

/** Real VMs: a few moments are enough, since all else about them is the same. */
const withVms: ChaosCase[] = [
  ...["vm-seen", "accepted", "rootfs-sent", "started", "stop-recorded"].map((step) =>
    at(step, kill("adaptor"), "embedded"),
  ),
  ...["vm-seen", "accepted", "started"].map((step) => at(step, kill("node"), "embedded")),
  ...["vm-seen", "accepted", "rootfs-sent", "started"].map((step) =>
    at(step, { kind: "kill-vm", noticed: true }, "embedded"),
  ),
  at("started", kill("redis", 1_000), "redis"),
  at("accepted", { kind: "reboot-node" }, "embedded", { create: "either" }),
  hit(
    [
      { at: "vm-seen", fault: kill("adaptor", 3_000) },
      { at: "vm-seen", fault: kill("node") },
    ],
    "embedded",
  ),
  at("exit-seen", kill("adaptor", 4_000), "embedded"),
].map((chaos) => ({
  ...chaos,
  name: `QEMU ${chaos.name}`,
  cloud: "local",
  boundMs: 60_000,
  create: chaos.create === "fails" ? "either" : chaos.create,
}));

/** Every case, those of the short run marked. */
export const CASES: readonly ChaosCase[] = [
  ...adaptorKilled,
  ...daemonKilled,
  ...relayKilled,
  ...redisKilled,
  ...vmKilled,
  ...paused,
  ...redisData,
  ...nodeGone,
  ...stopsNotDelivered,
  ...repeatedCalls,
  ...cloudTroubles,
  ...together,
  ...withVms,
];

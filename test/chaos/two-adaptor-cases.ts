import { ALL_STEPS, at, type Details, hit, kill, QUICK, quickAt } from "./case-builders.ts";
import type { ChaosCase } from "./chaos-case.ts";
import type { Fault } from "./faults.ts";
import { LEASE_MS } from "./world-config.ts";

const EITHER = ["adaptor", "adaptor-2"] as const;
/** Long enough for the other one to take over what it worked on, ms. */
const LONG_MS = LEASE_MS + 1_000;
/** Longer than a lease: what it goes on with when it wakes is another one's by then, ms. */
const FROZEN_MS = LEASE_MS + 2_500;
/** Longer than the node's connection is believed to live without an answer, ms. */
const SILENT_MS = 40_000;
/** Until another adaptor leads in a loop whose leader is gone, ms. */
const LEAD_MS = 8_000;
/** The steps around a request to the cloud, and what decides on one. */
const CLOUD_STEPS = ["run-asked", "run-effect", "accepted", "stop-recorded", "end-asked", "end-effect"];

const balanced = { adaptors: "balanced" } as const;
const first = { adaptors: "first" } as const;
const pause = (whom: (typeof EITHER)[number], downMs = FROZEN_MS): Fault => ({ kind: "pause", whom, downMs });
const leaderDies: Fault = { kind: "kill-leader", downMs: LEAD_MS };
const one = (step: string, fault: Fault, more: Details): ChaosCase => at(step, fault, "redis", more);

/** Either dies or freezes at each step; the node reaches whichever lives. */
const behindOneAddress = EITHER.flatMap((whom) =>
  ALL_STEPS.flatMap((step) => [
    one(step, kill(whom, LONG_MS), {
      ...balanced,
      ...quickAt(whom === "adaptor" ? ["run-effect"] : ["end-asked"], step),
    }),
    one(step, pause(whom), { ...balanced, ...quickAt(["run-effect"], step) }),
  ]),
);

/** The node knows one of them only: while that one is away the other carries on what was begun. */
const nodeAtTheFirst = CLOUD_STEPS.flatMap((step) =>
  EITHER.flatMap((whom) => [one(step, kill(whom, LONG_MS), first), one(step, pause(whom), first)]),
);

const forLonger = [
  // It is back when the case is over: the other one does all of it.
  ...["run-effect", "kill-asked"].map((step) => one(step, kill("adaptor", 12_000), balanced)),
  ...["run-asked", "kill-asked"].map((step) => one(step, pause("adaptor", SILENT_MS), balanced)),
];

const upgrades = ["create-asked", "run-asked", "accepted", "kill-asked", "end-asked"].map((step) =>
  one(step, { kind: "upgrade", downMs: 300 }, { ...balanced, ...quickAt(["accepted"], step) }),
);

const leaders: ChaosCase[] = [
  ...["create-asked", "run-effect", "started", "kill-asked", "end-asked"].map((step) =>
    one(step, leaderDies, balanced),
  ),
  // What only a loop finds out is found out by the next leader.
  hit(
    [
      { at: "started", fault: leaderDies },
      { at: "started", fault: { kind: "kill-vm", noticed: true } },
    ],
    "redis",
    { ...balanced, ...QUICK, boundMs: 60_000 },
  ),
  hit(
    [
      { at: "started", fault: leaderDies },
      { at: "started", fault: { kind: "redis-empty" } },
    ],
    "redis",
    { ...balanced, create: "either", boundMs: 60_000 },
  ),
];

const several: ChaosCase[] = [
  ...["run-asked", "run-effect", "accepted", "end-asked"].flatMap((step) => [
    hit(
      EITHER.map((whom) => ({ at: step, fault: kill(whom, LONG_MS) })),
      "redis",
      balanced,
    ),
    hit(
      [
        { at: step, fault: kill("adaptor", LONG_MS) },
        { at: step, fault: pause("adaptor-2") },
      ],
      "redis",
      balanced,
    ),
    hit(
      [
        { at: step, fault: pause("adaptor") },
        { at: step, fault: kill("node") },
      ],
      "redis",
      { ...balanced, create: "either" },
    ),
  ]),
  ...["run-asked", "kill-asked"].flatMap((step) => [
    one(step, kill("redis", 1_000), balanced),
    one(step, { kind: "pause", whom: "redis", downMs: 4_000 }, balanced),
    one(step, { kind: "redis-failover" }, { ...balanced, create: "either" }),
  ]),
  ...["started", "kill-asked"].flatMap((step) => [
    one(step, { kind: "redis-empty" }, { ...balanced, create: "either" }),
    one(step, { kind: "redis-old" }, { ...balanced, create: "either", snapshot: "before-bystander" }),
    one(step, { kind: "reboot-node" }, { ...balanced, create: "either" }),
  ]),
];

const together = EITHER.flatMap((whom) => [
  ...["run-asked", "accepted", "end-asked"].map((step) => one(step, kill(whom, LONG_MS), balanced)),
  ...["run-effect", "end-effect"].map((step) => one(step, pause(whom), balanced)),
]).map((chaos) => ({ ...chaos, name: `4 pods, ${chaos.name}`, pods: 4 }));

/** Two adaptors on one Redis: whatever becomes of either, pods go on, and one that was given up on does no harm. */
export const TWO_ADAPTOR_CASES: readonly ChaosCase[] = [
  ...behindOneAddress,
  ...nodeAtTheFirst,
  ...forLonger,
  ...upgrades,
  ...leaders,
  ...several,
  ...together,
];

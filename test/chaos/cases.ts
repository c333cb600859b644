import { ALL_STEPS, at, BEFORE_ANSWER, hit, kill, QUICK, quickAt, STEPS_WITH_VM } from "./case-builders.ts";
import type { ChaosCase } from "./chaos-case.ts";
import { afterEffect, CLOUD_CASES, cloud, hidden, KILLED_BEFORE_ANSWER } from "./cloud-cases.ts";
import { TWO_ADAPTOR_CASES } from "./two-adaptor-cases.ts";

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
  cloud("gives no answer to launches", [afterEffect("launch", "drop", 2)]),
  cloud("gives no answer to launches, and the adaptor is killed", [afterEffect("launch", "drop", 2)], {
    hits: KILLED_BEFORE_ANSWER,
  }),
  cloud("has room for some", [{ during: "create", kind: "quota", vms: 3 }], {
    create: "either",
  }),
  cloud("does not show what it has just made", [hidden(12)], {
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
  ...CLOUD_CASES,
  ...together,
  ...TWO_ADAPTOR_CASES,
  ...withVms,
];

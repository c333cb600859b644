// npm run bench:burst: node --expose-gc test/bench/burst/main.ts [--pods N,...] [--json FILE]
// The real adaptor and provider aws on a simulated EC2 account with the published limits, on a virtual clock. Exit code 1
// when a goal is missed. Last line: "burst: 2000 pods, N.NNx limit, N.NN calls/pod".
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { type Figure, figure, figureLine } from "../figure.ts";
import { machineFacts } from "../machine.ts";
import { type Burst, batchingBound, burst } from "./burst.ts";
import { type ReconcileLatency, reconcileLatency } from "./reconcile-latency.ts";

const MAIN = 2000;
const RECONCILED = 10_000;
const GOALS = { limit: 1.1, callsPerPod: 1.2, stateKiB: 20 };

function figuresOf(b: Burst): Figure[] {
  const name = `burst.${b.pods}`;
  const limit = b.limitSeconds > 0 ? { base: { value: b.limitSeconds, text: `the buckets' ${b.limitSeconds} s` } } : {};
  const calls = [...b.calls].map(([action, n]) => `${n} ${action}`).join(", ");
  return [
    figure(`${name}.ready`, `${b.pods} pods: until all are ready`, b.readySeconds, "s", limit),
    figure(`${name}.gone`, "until all are gone again", b.goneSeconds, "s"),
    figure(`${name}.launchCalls`, "launch requests", b.launchCalls, "calls", {
      note: `at least ${batchingBound(b.pods)} for 100 each`,
    }),
    figure(`${name}.callsPerPod`, "requests per pod, tags and deletion included", b.callsPerPod, "calls", {
      note: calls,
    }),
    figure(`${name}.throttled`, "requests that EC2 throttled", b.throttled, "calls"),
    figure(`${name}.leftovers`, "left behind", b.leftovers, "things"),
    figure(`${name}.waiting`, "memory of a waiting sandbox, its node's call included", b.waitingKiB, "KiB"),
    figure(`${name}.stored`, "in the store per sandbox", b.storedKiB, "KiB"),
    figure(`${name}.cpu`, "CPU per pod, the simulated account included", b.cpuMsPerPod, "ms"),
    figure(`${name}.real`, "the simulation took", b.realSeconds, "s"),
  ];
}

function latencyFigures({ sandboxes, quiet, during, passes }: ReconcileLatency): Figure[] {
  const name = `burst.reconcile.${sandboxes}`;
  const note = `${passes} pages of DescribeInstances were read meanwhile`;
  const text = `a new pod is accepted beside ${sandboxes} others`;
  return [
    figure(`${name}.quiet.p50`, `${text}, p50`, quiet.p50, "ms"),
    figure(`${name}.quiet.p99`, "p99", quiet.p99, "ms"),
    figure(`${name}.during.p50`, "while they are reconciled, p50", during.p50, "ms", { note }),
    figure(`${name}.during.p99`, "p99", during.p99, "ms"),
  ];
}

/** What a burst misses, in words. */
function missed(b: Burst): string[] {
  const atLimit = b.limitSeconds >= 10;
  return [
    ...(atLimit && b.readySeconds > GOALS.limit * b.limitSeconds ? [`ready after ${b.readySeconds} s`] : []),
    ...(b.pods <= 1000 && b.launchCalls > batchingBound(b.pods) ? [`${b.launchCalls} launch requests`] : []),
    // Of more pods the last ones wait longer than an hour for EC2, and listings go on meanwhile.
    ...(b.pods >= 1000 && b.pods <= MAIN && b.callsPerPod > GOALS.callsPerPod
      ? [`${b.callsPerPod} requests per pod`]
      : []),
    ...(b.pods >= 100 && Math.max(b.waitingKiB, b.storedKiB) > GOALS.stateKiB ? ["more than 20 KiB a sandbox"] : []),
    ...(b.leftovers > 0 ? [`${b.leftovers} things left behind`] : []),
  ].map((what) => `${b.pods} pods: ${what}`);
}

const { values } = parseArgs({ options: { pods: { type: "string" }, json: { type: "string" } } });
const sizes = (values.pods ?? `10,100,1000,10000,${MAIN}`).split(",").map(Number);
if (sizes.some((n) => !Number.isInteger(n) || n < 1)) {
  process.stderr.write("bench:burst: --pods takes whole numbers with commas between them\n");
  process.exit(2);
}
const machine = machineFacts();
console.log(machine.line);
const figures: Figure[] = [];
const problems: string[] = [];
const show = (found: readonly Figure[]): void => {
  figures.push(...found);
  console.log(["", ...found.map(figureLine)].join("\n"));
};
if (values.pods === undefined) show(latencyFigures(await reconcileLatency(RECONCILED)));
await burst(1); // what is loaded and compiled once is nobody's memory
let last: Burst | undefined;
for (const size of sizes) {
  const result = await burst(size);
  show(figuresOf(result));
  problems.push(...missed(result));
  last = result;
}
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify({ ...machine.facts, figures, problems }, undefined, 2)}\n`);
}
for (const problem of problems) console.log(`not reached: ${problem}`);
if (last !== undefined) {
  const limit = (last.readySeconds / Math.max(last.limitSeconds, 1)).toFixed(2);
  console.log(`burst: ${last.pods} pods, ${limit}x limit, ${last.callsPerPod.toFixed(2)} calls/pod`);
}
process.exit(problems.length === 0 ? 0 : 1);

import { parseArgs } from "node:util";
import { attack } from "./campaign.ts";
import { Random } from "./random.ts";
import { TARGETS } from "./targets.ts";

/**
 * `npm run test:fuzz`: mutated frames over every socket that a stranger can reach, each server in a process of its own.
 *   --frames N    to each socket (default 1,000,000)
 *   --quick       5,000 to each socket, within half a minute: for CI
 *   --only A,B    these sockets: hypervisor, relay, forwarder, task
 *   --seed N      repeats what a run with this seed sent
 * Last line: `fuzz: N frames, M crashes`. Exit code 1 when something crashed, stopped answering or leaked.
 */
const QUICK = 5_000;
const MIB = 1 << 20;

const { values } = parseArgs({
  options: {
    frames: { type: "string" },
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    seed: { type: "string" },
  },
});
const frames = Number(values.frames ?? (values.quick ? QUICK : 1_000_000));
const seed = Number(values.seed ?? Date.now() % 1_000_000_007);
const names = values.only?.split(",") ?? Object.keys(TARGETS);
const unknown = names.find((name) => !(name in TARGETS));
if (!Number.isSafeInteger(frames) || frames < 1 || !Number.isSafeInteger(seed) || unknown !== undefined) {
  console.error(`fuzz: --frames and --seed are numbers; --only knows ${Object.keys(TARGETS).join(", ")}`);
  process.exit(2);
}

console.log(`fuzz: seed ${seed}, ${frames} frames to each of ${names.join(", ")}`);
let total = 0;
let crashes = 0;
for (const name of names) {
  const target = await TARGETS[name]?.();
  if (target === undefined) continue;
  const startedMs = performance.now();
  try {
    const { problems, connections, before, after, ...sent } = await attack(target, frames, new Random(seed));
    total += sent.frames;
    crashes += problems.length;
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(
      `${name}: ${sent.frames} frames on ${connections} connections in ${seconds} s; ` +
        `descriptors ${before.descriptors} -> ${after.descriptors}, in use ${mib(before.usedBytes)} -> ` +
        `${mib(after.usedBytes)}, resident ${mib(before.rssBytes)} -> ${mib(after.rssBytes)} MiB`,
    );
    for (const problem of problems)
      console.log(`${name}: FAILED: ${problem} (repeat with --only ${name} --seed ${seed})`);
  } finally {
    await target.close();
  }
}
console.log(`fuzz: ${total} frames, ${crashes} crashes`);
process.exitCode = crashes === 0 ? 0 : 1;
process.once("beforeExit", () => process.exit()); // see src/cmd/kata-remote.ts

function mib(bytes: number): number {
  return Math.round(bytes / MIB);
}

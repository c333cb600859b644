// npm run test:chaos [-- --quick] [--cloud ec2|arm|local] [--seed N --cases N] [--only PATTERN] [--parallel N] [--list]
// Last line: "chaos: N cases, N leaked, N lost, N stuck". Exit code 0 only when these are zeros and N is not.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { withoutRedis } from "../support/redis-server.ts";
import { CASES } from "./cases.ts";
import type { ChaosCase } from "./chaos-case.ts";
import { CLOUDS, type CloudKind, hasRealVms } from "./clouds.ts";
import { CONTAINERD_CASES, type ContainerdCase, runContainerdCase } from "./containerd-cases.ts";
import { messageOf } from "./containerd-stand-in.ts";
import { GuestPool } from "./guests.ts";
import { buildPrograms, buildVmImage, makeNextVersion } from "./programs.ts";
import { randomCases } from "./random-cases.ts";
import { type Problem, runCase } from "./run-case.ts";
import { World, type WorldDeps } from "./world.ts";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    seed: { type: "string" },
    cases: { type: "string", default: "20" },
    only: { type: "string" },
    parallel: { type: "string", default: "3" },
    list: { type: "boolean", default: false },
    cloud: { type: "string", default: "ec2" },
  },
});
const CLOUD = cloudOf(options.cloud);

function cloudOf(name: string): CloudKind {
  if (Object.hasOwn(CLOUDS, name)) return name as CloudKind;
  throw new Error(`--cloud ${name} is unknown: it is one of ${Object.keys(CLOUDS).join(", ")}`);
}

function chosen(): readonly ChaosCase[] {
  const { seed, quick, only, cases } = options;
  const all = seed === undefined ? CASES : randomCases(Number(seed), Number(cases));
  const redis = withoutRedis() === false;
  return (
    all
      .filter((c) => !quick || c.quick === true)
      .filter((c) => only === undefined || new RegExp(only).test(c.name))
      // Cases that name a cloud run with the usual one, and when it is asked for.
      .filter((c) => c.cloud === undefined || CLOUD === "ec2" || c.cloud === CLOUD)
      .filter((c) => redis || c.store === "embedded")
  );
}

/** They need root's containerd and minutes: not in the short run, nor with random cases. */
function chosenContainerdCases(): readonly ContainerdCase[] {
  const { seed, quick, only = "" } = options;
  return quick || seed !== undefined || CLOUD !== "ec2"
    ? []
    : CONTAINERD_CASES.filter((c) => new RegExp(only).test(c.name));
}

/** Worlds that a case has left as it found them: the next case of that kind of store takes one. */
class Worlds {
  readonly #all = new Set<World>();
  readonly #idle: World[] = [];
  readonly #deps: WorldDeps;
  #ended = 0;
  readonly #left: string[] = [];

  constructor(deps: WorldDeps) {
    this.#deps = deps;
  }

  /** What is left in the accounts of all worlds that have ended. */
  get sweep(): string {
    return [`sweep: ${this.#ended} accounts, ${this.#left.length} resources left`, ...this.#left].join("\n       ");
  }

  async take({ store, cloud = CLOUD, adaptors = "one" }: ChaosCase): Promise<World> {
    const found = this.#idle.findIndex(
      ({ kind }) => kind.store === store && kind.cloud === cloud && kind.adaptors === adaptors,
    );
    const [idle] = found < 0 ? [] : this.#idle.splice(found, 1);
    if (idle !== undefined) return idle;
    const world = await World.open({ ...this.#deps, store, cloud, adaptors });
    this.#all.add(world);
    return world;
  }

  async end(world: World, keep: boolean): Promise<void> {
    this.#all.delete(world);
    this.#ended++;
    this.#left.push(...world.cloud.leftovers());
    await world.close(keep);
  }

  put(world: World): void {
    this.#idle.push(world);
  }

  async close(): Promise<void> {
    this.#idle.length = 0;
    for (const world of this.#all) await this.end(world, false);
  }
}

/** Whether the world is the same after the case as before it. */
function reusable(chaos: ChaosCase): boolean {
  const lasting = chaos.hits.some(({ fault }) => fault.kind === "lose-node" || fault.kind.startsWith("redis-"));
  return !lasting && (chaos.troubles ?? []).length === 0;
}

function report(name: string, began: number, problems: readonly Problem[]): void {
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`${problems.length === 0 ? "ok    " : "FAILED"} ${seconds.padStart(5)} s  ${name}`);
  for (const { kind, text } of problems) console.log(`         ${kind}: ${text}`);
}

/** When the machine stood still for so long in a case that failed, it is run again, once. */
const DISTURBED_MS = 5_000;

/** @returns undefined when the cloud cannot misbehave so */
async function runOne(worlds: Worlds, chaos: ChaosCase): Promise<readonly Problem[] | undefined> {
  const first = await tryOne(worlds, chaos);
  if (first === undefined || first.problems.length === 0 || first.stalledMs < DISTURBED_MS) return first?.problems;
  console.log(`again            ${chaos.name}: the machine stood still for ${Math.round(first.stalledMs)} ms of it`);
  return (await tryOne(worlds, chaos))?.problems;
}

async function tryOne(
  worlds: Worlds,
  chaos: ChaosCase,
): Promise<{ readonly problems: readonly Problem[]; readonly stalledMs: number } | undefined> {
  const began = performance.now();
  const world = await worlds.take(chaos);
  const impossible = chaos.troubles?.find((trouble) => !world.cloud.canHave(trouble));
  if (impossible !== undefined) {
    console.log(`not run          ${chaos.name}: cloud ${world.cloud.kind} has no ${impossible.kind}`);
    worlds.put(world);
    return undefined;
  }
  const [since, stalledBefore] = [world.timeline.length, world.stalledMs];
  const problems = await runCase(world, chaos);
  const stalledMs = world.stalledMs - stalledBefore;
  report(chaos.name, began, problems);
  if (problems.length === 0) {
    if (reusable(chaos)) worlds.put(world);
    else await worlds.end(world, false);
    return { problems, stalledMs };
  }
  console.log(world.timeline.text(since));
  console.log(`         logs: ${[...world.adaptors.map((a) => a.log), world.node.logPath].join(", ")}`);
  await worlds.end(world, true);
  return { problems, stalledMs };
}

function memoized<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

async function main(): Promise<void> {
  const cases = chosen();
  if (options.list) return console.log([...cases, ...chosenContainerdCases()].map((c) => c.name).join("\n"));
  const folder = mkdtempSync(join(tmpdir(), "krcr-"));
  const problems: Problem[] = [];
  const [withVms, others] = [
    cases.filter((c) => hasRealVms(c.cloud ?? CLOUD)),
    cases.filter((c) => !hasRealVms(c.cloud ?? CLOUD)),
  ];
  let ran = 0;
  try {
    const [program, pool] = await Promise.all([buildPrograms(folder), GuestPool.open(join(folder, "guests"), 2)]);
    const vmImage = memoized(() => buildVmImage(program, folder));
    const worlds = new Worlds({ program, nextProgram: makeNextVersion(program), pool, vmImage });
    const interrupted = (): void => {
      const ended = worlds.close().catch((e: unknown) => console.error(messageOf(e)));
      void ended.then(() => {
        rmSync(folder, { recursive: true, force: true });
        process.exit(130);
      });
    };
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, interrupted);
    const work = async (waiting: ChaosCase[]): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        try {
          const found = await runOne(worlds, next);
          if (found === undefined) continue;
          problems.push(...found);
        } catch (e) {
          console.log(`FAILED          ${next.name}: ${messageOf(e)}`);
          problems.push({ kind: "stuck", text: messageOf(e) });
        }
        ran++;
      }
    };
    await Promise.all(Array.from({ length: Number(options.parallel) }, () => work(others)));
    await worlds.close();
    // Emulated VMs want the machine for themselves.
    await work(withVms);
    await worlds.close();
    console.log(worlds.sweep);
    for (const chaos of chosenContainerdCases()) {
      const began = performance.now();
      const found = await runContainerdCase(chaos).catch((e: unknown): Problem[] => [
        { kind: "stuck", text: messageOf(e) },
      ]);
      report(chaos.name, began, found);
      problems.push(...found);
      ran++;
    }
    await pool[Symbol.asyncDispose]();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const count = (kind: Problem["kind"]): number => problems.filter((p) => p.kind === kind).length;
  if (problems.length > 0 || ran === 0) process.exitCode = 1;
  console.log(`chaos: ${ran} cases, ${count("leaked")} leaked, ${count("lost")} lost, ${count("stuck")} stuck`);
}

await main();
process.exit(); // see src/cmd/kata-remote.ts

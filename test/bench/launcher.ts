import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { quantile } from "./measure.ts";
import { PodWorld } from "./pod-world.ts";

const RUNS = 50;

/** Time of the launcher's `start`, beside a boot of Node and the start of a program that does nothing. */
export async function launcherFigures(scope: BenchScope): Promise<Figure[]> {
  await using world = await PodWorld.start(scope, { name: "l" });
  scope.say(`launcher: ${RUNS} starts, each beside a boot of Node`);
  const before = performance.now();
  await world.startDaemon();
  const coldMs = performance.now() - before;

  const start = (i: number): number => {
    const bundle = join(world.folder, "b", String(i));
    mkdirSync(bundle, { recursive: true });
    const { ms, stdout } = timed(world.launcher, world.launcherArgs(`c${i}`), { cwd: bundle, env: world.env });
    if (!stdout.startsWith("unix://")) throw new Error(`the launcher printed "${stdout}" instead of an address`);
    return ms;
  };
  const times = { start: [] as number[], node: [] as number[], nothing: [] as number[] };
  for (let i = -3; i < RUNS; i++) {
    scope.call.signal.throwIfAborted();
    const turn = {
      start: start(i),
      node: timed(process.execPath, ["-e", "0"]).ms,
      nothing: timed("/bin/true", []).ms,
    };
    if (i < 0) continue; // fills caches
    for (const key of ["start", "node", "nothing"] as const) times[key].push(turn[key]);
  }
  const p = (key: keyof typeof times, share: number): number => quantile(times[key], share);
  const base = (share: number) => ({
    value: p("node", share),
    text: `a bare Node boot (${p("node", share).toFixed(1)} ms)`,
  });
  return [
    figure("launcher.start.p50", "launcher start, daemon alive, p50", p("start", 0.5), "ms", { base: base(0.5) }),
    figure("launcher.start.p99", "launcher start, daemon alive, p99", p("start", 0.99), "ms", { base: base(0.99) }),
    figure("launcher.nothing.p50", "for comparison: /bin/true, p50", p("nothing", 0.5), "ms", { base: base(0.5) }),
    figure("launcher.cold", "launcher start that starts the node daemon, once", coldMs, "ms", { base: base(0.5) }),
  ];
}

function timed(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): { readonly ms: number; readonly stdout: string } {
  const before = performance.now();
  const { status, stdout, stderr, error } = spawnSync(program, args, { ...options, encoding: "utf8" });
  const ms = performance.now() - before;
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${program} ended with ${status}: ${stderr}`);
  return { ms, stdout };
}

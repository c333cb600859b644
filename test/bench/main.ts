// npm run bench: node test/bench/main.ts [--json FILE] [--only NAME,...]
// Measures; asserts nothing. Exit code 1 when something could not be measured, 130 after Ctrl-C.
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { adaptorFigures } from "./adaptor.ts";
import { BenchScope } from "./bench-scope.ts";
import { cloudCallFigures } from "./cloud-calls.ts";
import { type Figure, figureLine } from "./figure.ts";
import { compareWithGoals, goalTable } from "./goals.ts";
import { launcherFigures } from "./launcher.ts";
import { machineFacts } from "./machine.ts";
import { nodeMemoryFigures } from "./node-memory.ts";
import { podNetworkFigures } from "./pod-network.ts";
import { podStartFigures } from "./pod-start.ts";
import { relayFigures } from "./relay-process.ts";
import { ttrpcFigures } from "./ttrpc-figures.ts";
import { tunnelFigures } from "./tunnel.ts";
import { volumeFigures } from "./volumes.ts";

/** In the order in which they run: what needs a quiet machine most comes first. */
const GROUPS = {
  launcher: { title: "shim launcher", measure: launcherFigures },
  ttrpc: { title: "ttrpc between two processes, unix socket", measure: ttrpcFigures },
  tunnel: { title: "agent calls: relay, TLS, forwarder in a network namespace, stub agent", measure: tunnelFigures },
  relay: { title: "agent calls as a node daemon makes them: through the relay process", measure: relayFigures },
  adaptor: { title: "adaptor with a provider that costs nothing", measure: adaptorFigures },
  volumes: { title: "following ConfigMaps, Secrets and tokens of 100 pods", measure: volumeFigures },
  "cloud-calls": { title: "requests to the cloud for one pod, counted at endpoints", measure: cloudCallFigures },
  start: { title: "pod start in a real VM", measure: podStartFigures },
  "pod-network": { title: "the pod's network: between namespaces, and into real VMs", measure: podNetworkFigures },
  memory: { title: "memory of node daemon and relay process", measure: nodeMemoryFigures },
} as const;
type GroupName = keyof typeof GROUPS;

/** How long a measurement may take to clean up after Ctrl-C before everything is killed, ms. */
const UNWIND_MS = 60_000;

/** What whoever called it has to change. */
class WrongUsage extends Error {}

function wanted(only: string | undefined): GroupName[] {
  const all = Object.keys(GROUPS) as GroupName[];
  if (only === undefined) return all;
  const names = only.split(",");
  const unknown = names.filter((name) => !all.includes(name as GroupName));
  if (unknown.length > 0) throw new WrongUsage(`--only ${unknown.join(",")} is unknown: ${all.join(", ")} are known`);
  return all.filter((name) => names.includes(name));
}

function options(): { readonly json?: string; readonly only?: string } {
  try {
    return parseArgs({ options: { json: { type: "string" }, only: { type: "string" } } }).values;
  } catch (e) {
    throw new WrongUsage((e as Error).message);
  }
}

async function measureAll(names: readonly GroupName[], scope: BenchScope) {
  const figures: Figure[] = [];
  const problems: string[] = [];
  for (const name of names) {
    if (scope.call.signal.aborted) break;
    const { title, measure } = GROUPS[name];
    try {
      const found = await measure(scope);
      figures.push(...found);
      console.log([`\n${name}: ${title}`, ...found.map(figureLine)].join("\n"));
    } catch (e) {
      if (scope.call.signal.aborted) break;
      problems.push(`${name}: ${e instanceof Error ? (e.stack ?? e.message) : String(e)}`);
      console.log(`\n${name}: ${title}\n  could not be measured: ${problems.at(-1)}`);
    }
  }
  return { figures, problems };
}

/** Ends with the first SIGINT or SIGTERM; a second one ends this process at once. */
function untilSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(130);
      process.stderr.write(`bench: ${name}: cleaning up (once more to leave everything as it is)\n`);
      controller.abort(new Error(`${name} received`));
    });
  }
  return controller.signal;
}

async function main(): Promise<number> {
  const { json, only } = options();
  const names = wanted(only);
  if (process.getuid?.() !== 0)
    throw new WrongUsage("root is needed: containerd, VMs and network namespaces are started");
  const signal = untilSignal();
  const machine = machineFacts();
  console.log(machine.line);
  const scope = new BenchScope({ signal });
  const interrupted = new Promise<undefined>((resolve) => {
    signal.addEventListener("abort", () => setTimeout(() => resolve(undefined), UNWIND_MS).unref(), { once: true });
  });
  let result: Awaited<ReturnType<typeof measureAll>> | undefined;
  try {
    result = await Promise.race([measureAll(names, scope), interrupted]);
  } finally {
    const left = await scope.close();
    if (left.length > 0) process.stderr.write(`bench: had not ended and was killed: ${left.join("; ")}\n`);
    if (left.length > 0 && !signal.aborted) result?.problems.push(`left behind: ${left.join("; ")}`);
  }
  if (result === undefined || signal.aborted) return 130;
  const goals = compareWithGoals(result.figures);
  if (goals.length > 0) console.log(`\n${goalTable(goals)}`);
  if (json !== undefined) {
    writeFileSync(json, `${JSON.stringify({ ...machine.facts, ...result, goals }, undefined, 2)}\n`);
  }
  return result.problems.length === 0 ? 0 : 1;
}

try {
  // Not exitCode: what an interrupted measurement still waits for must not keep this process.
  process.exit(await main());
} catch (e) {
  if (!(e instanceof WrongUsage)) throw e;
  process.stderr.write(`bench: ${e.message}\n`);
  process.exitCode = 2;
}

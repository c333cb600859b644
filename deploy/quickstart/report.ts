// Usage: node deploy/quickstart/report.ts PS.JSON ID   prints the stages of one pod's start, and the closing line.
import { readFileSync } from "node:fs";

interface Ps {
  readonly sandboxes: readonly {
    readonly id: string;
    readonly instanceId: string;
    readonly timingsMs: Readonly<Record<string, number>>;
  }[];
}

const [path, id] = process.argv.slice(2);
if (path === undefined || id === undefined) throw new Error("a file and an id are needed");
const { sandboxes } = JSON.parse(readFileSync(path, "utf8")) as Ps;
const sandbox = sandboxes.find((s) => s.id === id);
if (sandbox === undefined) throw new Error(`"kata-remote ps" did not show ${id} while it ran`);

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
console.log("stages of the start:");
let total = 0;
let readyMs = 0;
for (const [stage, ms] of Object.entries(sandbox.timingsMs)) {
  console.log(`    ${stage.padEnd(12)} ${seconds(ms)}`);
  total += ms;
  if (stage === "agent") readyMs = total;
}
console.log(`container exit 0 in pod VM ${sandbox.instanceId} (agent ready after ${seconds(readyMs || total)})`);

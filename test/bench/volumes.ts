import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { PeerProcess } from "./peer-process.ts";

const PODS = 100;
const SETTLE_MS = 5_000;
const QUIET_MS = 20_000;

/** What following the volumes of 100 pods costs the node daemon: while nothing changes, and when all tokens rotate. */
export async function volumeFigures(scope: BenchScope): Promise<Figure[]> {
  const none = await quietPercent(0, scope);
  const { percent, rotationMs, rotationCpuMs } = await measured(scope);
  const note = "3 volumes a pod; agents are stand-ins in the same process";
  return [
    figure("volumes.quiet0", "shim without pods left alone", none, "% core"),
    figure("volumes.quiet100", `${PODS} pods' volumes watched, nothing changes`, percent, "% core", { note }),
    figure("volumes.rotation", `a token of each of ${PODS} pods rotates: all sent after`, rotationMs, "ms"),
    figure("volumes.rotationCpu", "  CPU of that, stand-ins and kubelet's part included", rotationCpuMs, "ms"),
  ];
}

async function quietPercent(pods: number, scope: BenchScope): Promise<number> {
  await using peer = await start(pods, scope);
  return await leftAlone(peer, scope);
}

async function measured(scope: BenchScope) {
  await using peer = await start(PODS, scope);
  const percent = await leftAlone(peer, scope);
  const before = await peer.cpuSeconds();
  const rotationMs = (await peer.tell("SIGUSR2")) as number;
  return { percent, rotationMs, rotationCpuMs: ((await peer.cpuSeconds()) - before) * 1_000 };
}

function start(pods: number, scope: BenchScope): Promise<PeerProcess<number>> {
  const folder = join(scope.folder, `volumes-${pods}`);
  mkdirSync(folder, { recursive: true });
  const script = join(import.meta.dirname, "volumes-process.ts");
  return PeerProcess.start<number>({ script, args: [String(pods), folder] });
}

async function leftAlone(peer: PeerProcess<number>, scope: BenchScope): Promise<number> {
  const { signal } = scope.call;
  await delay(SETTLE_MS, undefined, { signal });
  const before = await peer.cpuSeconds();
  await delay(QUIET_MS, undefined, { signal });
  return (((await peer.cpuSeconds()) - before) / (QUIET_MS / 1_000)) * 100;
}

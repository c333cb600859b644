import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { withDeadline } from "../../src/base/call.ts";
import type { Relay } from "../../src/relay/index.ts";
import type { UnaryCaller } from "../../src/ttrpc/index.ts";
import { must } from "../e2e/harness/run-command.ts";
import { containerWithOutput, healthCheck, OutputReader } from "./agent-calls.ts";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { inFlight, oneByOne } from "./measure.ts";
import type { PeerProcess } from "./peer-process.ts";
import { type TtrpcBenchResult, withCpu } from "./ttrpc.ts";
import { TunnelWorld } from "./tunnel-world.ts";

const READ_MS = 3_000;
const COPIED_BYTES = 512 << 20;

/**
 * Agent calls through the relay's guest connection (TLS over TCP over veth) and the guest's forwarder, to an agent that
 * does nothing. Each as a ratio to ttrpc between two processes over a unix socket.
 */
export async function tunnelFigures(scope: BenchScope): Promise<Figure[]> {
  const bare = await scope.ttrpc();
  scope.say("agent calls through relay and forwarder, forwarder in a network namespace");
  await using world = await TunnelWorld.open(scope, "t");
  const { fixture, guest } = world;
  await fixture.relay.connectGuest(world.spec, withDeadline(20_000, scope.call));
  const caller = fixture.relay.guest(fixture.sandboxId);
  return [
    ...(await callFigures(caller, { name: "tunnel", text: "through tunnel", bare })),
    ...(await cpuFigures(caller, guest, bare)),
    ...(await readFigures(caller, bare)),
    await copyFigure(fixture.relay, world, { name: "tunnel", text: "a container's stdout", bare }),
  ];
}

/** What is measured, and what it is a ratio to. */
export interface Measured {
  /** First part of the figures' names. */
  readonly name: string;
  readonly text: string;
  readonly bare: TtrpcBenchResult;
}

const base = (value: number) => ({ value, text: `bare ttrpc (${value.toLocaleString("en-US")})` });

export async function callFigures(caller: UnaryCaller, { name, text, bare }: Measured): Promise<Figure[]> {
  const check = healthCheck(caller);
  await oneByOne(check, 10_000);
  const single = await oneByOne(check, 20_000);
  await inFlight(check, 32, 10_000);
  const perSecond = await inFlight(check, 32, 60_000);
  return [
    figure(`${name}.check.p50`, `agent RPC ${text}, p50`, single.p50Us, "us", { base: base(bare.sequentialP50Us) }),
    figure(`${name}.check.p99`, `agent RPC ${text}, p99`, single.p99Us, "us", { base: base(bare.sequentialP99Us) }),
    figure(`${name}.check.rate`, `agent RPC ${text}, 32 in flight`, perSecond, "calls/s", {
      base: base(bare.concurrentCallsPerSecond),
    }),
  ];
}

async function cpuFigures(caller: UnaryCaller, guest: PeerProcess<unknown>, bare: TtrpcBenchResult): Promise<Figure[]> {
  const check = healthCheck(caller);
  const [, single] = await withCpu(guest, () => oneByOne(check, 20_000));
  const [, together] = await withCpu(guest, () => inFlight(check, 32, 60_000));
  return [
    figure("tunnel.check.perCpu", "calls per CPU second of both ends, one by one", 20_000 / single, "calls", {
      base: base(bare.sequentialCallsPerCpuSecond),
    }),
    figure("tunnel.check.perCpu32", "calls per CPU second of both ends, 32 in flight", 60_000 / together, "calls", {
      base: base(bare.concurrentCallsPerCpuSecond),
    }),
  ];
}

async function readFigures(caller: UnaryCaller, bare: TtrpcBenchResult): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [len, name, one, four] of [
    [32 << 10, "32 KiB", bare.sequentialReplies32KiBMBps, bare.replies32KiBMBps],
    [1 << 20, "1 MiB", bare.sequentialReplies1MiBMBps, bare.replies1MiBMBps],
  ] as const) {
    const reader = new OutputReader(caller, { containerId: "endless", execId: "endless" });
    await reader.throughput(len, READ_MS / 4);
    const sequential = await reader.throughput(len, READ_MS);
    const count = Math.ceil((sequential * READ_MS * 1000) / len);
    const together = ((await inFlight(() => reader.read(len), 4, count)) * len) / 1e6;
    const id = name.replace(" ", "");
    figures.push(
      figure(`tunnel.read${id}`, `ReadStdout through tunnel, ${name} reads`, sequential, "MB/s", {
        base: { value: one, text: `bare ttrpc (${one} MB/s)` },
      }),
      figure(`tunnel.read${id}by4`, `ReadStdout through tunnel, ${name} reads, 4 in flight`, together, "MB/s", {
        base: { value: four, text: `bare ttrpc (${four} MB/s)` },
      }),
    );
  }
  return figures;
}

/** The relay's own copying: what a container writes, until it is in the FIFO that containerd made. */
export async function copyFigure(
  relay: Relay,
  { folder, fixture: { sandboxId } }: TunnelWorld,
  { name, text, bare }: Measured,
): Promise<Figure> {
  const fifo = join(folder, "stdout");
  await must("mkfifo", [fifo]);
  const reader = spawn("cat", [fifo], { stdio: ["ignore", "ignore", "inherit"] });
  const ended = once(reader, "exit");
  try {
    const containerId = containerWithOutput(COPIED_BYTES);
    const key = `${sandboxId}/${containerId}/${containerId}`;
    const names = { key, sandboxId, containerId, execId: containerId };
    const start = performance.now();
    await relay.attachStdio(
      { ...names, terminal: false, stdin: "", stdout: `fifo://${fifo}`, stderr: "" },
      withDeadline(60_000),
    );
    await relay.stdioDrained(key);
    const ms = performance.now() - start;
    await relay.detachStdio(key);
    const { sequentialReplies1MiBMBps: value } = bare;
    const line = `${text}, from agent into containerd's FIFO`;
    return figure(`${name}.stdout`, line, COPIED_BYTES / ms / 1000, "MB/s", {
      base: { value, text: `bare ttrpc, 1 MiB (${value} MB/s)` },
    });
  } finally {
    reader.kill();
    await ended;
  }
}

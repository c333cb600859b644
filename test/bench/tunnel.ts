import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { withDeadline } from "../../src/base/call.ts";
import type { UnaryCaller } from "../../src/ttrpc/index.ts";
import { must } from "../e2e/harness/run-command.ts";
import { RelayFixture } from "../support/relay-fixture.ts";
import { containerWithOutput, healthCheck, OutputReader } from "./agent-calls.ts";
import type { BenchScope } from "./bench-scope.ts";
import { type Figure, figure } from "./figure.ts";
import { inFlight, oneByOne } from "./measure.ts";
import { NetworkNamespace } from "./network-namespace.ts";
import { PeerProcess } from "./peer-process.ts";
import { type TtrpcBenchResult, withCpu } from "./ttrpc.ts";

const READ_MS = 3_000;
const COPIED_BYTES = 512 << 20;

/**
 * Agent calls through the relay's guest connection (TLS over TCP over veth) and the guest's forwarder, to an agent that
 * does nothing. Each as a ratio to ttrpc between two processes over a unix socket.
 */
export async function tunnelFigures(scope: BenchScope): Promise<Figure[]> {
  const bare = await scope.ttrpc();
  scope.say("agent calls through relay and forwarder, forwarder in a network namespace");
  await using fixture = await RelayFixture.create();
  await using namespace = await NetworkNamespace.create(scope.network);
  const folder = join(scope.folder, "t");
  mkdirSync(folder);
  const caPath = join(folder, "ca.pem");
  writeFileSync(caPath, fixture.ca.caPem);
  await using guest = await PeerProcess.start<number>({
    script: join(import.meta.dirname, "guest-process.ts"),
    args: [caPath, folder, namespace.address],
    through: namespace.through,
  });
  const spec = fixture.spec(guest.ready, { addresses: [namespace.address] });
  await fixture.relay.connectGuest(spec, withDeadline(20_000, scope.call));
  const caller = fixture.relay.guest(fixture.sandboxId);
  return [
    ...(await callFigures(caller, guest, bare)),
    ...(await readFigures(caller, bare)),
    await copyFigure(fixture, folder, bare),
  ];
}

async function callFigures(
  caller: UnaryCaller,
  guest: PeerProcess<unknown>,
  bare: TtrpcBenchResult,
): Promise<Figure[]> {
  const check = healthCheck(caller);
  await oneByOne(check, 10_000);
  const [single, singleCpu] = await withCpu(guest, () => oneByOne(check, 20_000));
  await inFlight(check, 32, 10_000);
  const [perSecond, cpu] = await withCpu(guest, () => inFlight(check, 32, 60_000));
  const base = (value: number) => ({ value, text: `bare ttrpc (${value.toLocaleString("en-US")})` });
  return [
    figure("tunnel.check.p50", "agent RPC through tunnel, p50", single.p50Us, "us", {
      base: base(bare.sequentialP50Us),
    }),
    figure("tunnel.check.p99", "agent RPC through tunnel, p99", single.p99Us, "us", {
      base: base(bare.sequentialP99Us),
    }),
    figure("tunnel.check.rate", "agent RPC through tunnel, 32 in flight", perSecond, "calls/s", {
      base: base(bare.concurrentCallsPerSecond),
    }),
    figure("tunnel.check.perCpu", "calls per CPU second of both ends, one by one", 20_000 / singleCpu, "calls", {
      base: base(bare.sequentialCallsPerCpuSecond),
    }),
    figure("tunnel.check.perCpu32", "calls per CPU second of both ends, 32 in flight", 60_000 / cpu, "calls", {
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
async function copyFigure(fixture: RelayFixture, folder: string, bare: TtrpcBenchResult): Promise<Figure> {
  const fifo = join(folder, "stdout");
  await must("mkfifo", [fifo]);
  const reader = spawn("cat", [fifo], { stdio: ["ignore", "ignore", "inherit"] });
  const ended = once(reader, "exit");
  try {
    const containerId = containerWithOutput(COPIED_BYTES);
    const stream = {
      containerId,
      execId: containerId,
      terminal: false,
      stdin: "",
      stdout: `fifo://${fifo}`,
      stderr: "",
    };
    const start = performance.now();
    await fixture.relay.attachStdio(
      { key: "copy", sandboxId: fixture.sandboxId, ...stream },
      { signal: AbortSignal.timeout(60_000) },
    );
    await fixture.relay.stdioDrained("copy");
    const ms = performance.now() - start;
    await fixture.relay.detachStdio("copy");
    const base = {
      value: bare.sequentialReplies1MiBMBps,
      text: `bare ttrpc, 1 MiB (${bare.sequentialReplies1MiBMBps} MB/s)`,
    };
    return figure(
      "tunnel.stdout",
      "a container's stdout, from agent into containerd's FIFO",
      COPIED_BYTES / ms / 1000,
      "MB/s",
      {
        base,
      },
    );
  } finally {
    reader.kill();
    await ended;
  }
}

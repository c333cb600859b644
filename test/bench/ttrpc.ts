import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TtrpcClient, TtrpcServer } from "../../src/ttrpc/index.ts";

const SERVICE = "bench.Echo";
const ECHO = "Echo";
const BYTES = "Bytes";

export interface TtrpcBenchResult {
  /** The same round trip over the bare socket: what this machine leaves for ttrpc to add to. */
  readonly bareSocketP50Us: number;
  readonly sequentialP50Us: number;
  readonly sequentialP99Us: number;
  readonly sequentialCallsPerSecond: number;
  /** 32 in flight. */
  readonly concurrentCallsPerSecond: number;
  /** MB/s (10^6 bytes) of reply payload, 4 in flight. */
  readonly replies32KiBMBps: number;
  readonly replies1MiBMBps: number;
}

/**
 * Measures ttrpc between two processes over a unix socket: this one calls, a copy of it answers. Small calls carry 64 bytes
 * each way. Takes about 8 s.
 */
export async function benchTtrpc(): Promise<TtrpcBenchResult> {
  const folder = await mkdtemp(join(tmpdir(), "bench-ttrpc-"));
  const path = join(folder, "s");
  const peer = fork(import.meta.filename, [path], { execArgv: process.execArgv });
  try {
    await Promise.race([
      once(peer, "message"),
      once(peer, "exit").then(() => Promise.reject(new Error("the answering process ended before it listened"))),
    ]);
    const client = new TtrpcClient(connect(path));
    try {
      return await measure(client, await bareSocket(`${path}.bare`));
    } finally {
      client.close();
    }
  } finally {
    peer.kill();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Median round trip of 90 bytes, about the frame of a small call, us. */
async function bareSocket(path: string): Promise<number> {
  const socket = connect(path);
  const frame = Buffer.alloc(90);
  let arrived = (): void => undefined;
  socket.on("data", () => arrived());
  const call = (): Promise<void> =>
    new Promise((resolve) => {
      arrived = resolve;
      socket.write(frame);
    });
  await sequential(call, 10_000);
  const { latencies } = await sequential(call, 20_000);
  socket.destroy();
  return percentile(latencies, 0.5);
}

async function measure(client: TtrpcClient, bareSocketP50Us: number): Promise<TtrpcBenchResult> {
  const payload = Buffer.alloc(64, 7);
  const small = (): Promise<Uint8Array> => client.call(SERVICE, ECHO, payload);
  await sequential(small, 20_000); // compiles both sides
  const { latencies, callsPerSecond } = await sequential(small, 40_000);
  await concurrent(small, 32, 20_000);
  const concurrentCallsPerSecond = await concurrent(small, 32, 200_000);
  const result = {
    bareSocketP50Us,
    sequentialP50Us: percentile(latencies, 0.5),
    sequentialP99Us: percentile(latencies, 0.99),
    sequentialCallsPerSecond: Math.round(callsPerSecond),
    concurrentCallsPerSecond: Math.round(concurrentCallsPerSecond),
    replies32KiBMBps: await throughput(client, 32 << 10, 20_000),
    replies1MiBMBps: await throughput(client, 1 << 20, 1_000),
  };
  process.stdout.write(
    `ttrpc, two processes, unix socket: p50 ${result.sequentialP50Us} us (bare socket ${bareSocketP50Us}), p99 ${result.sequentialP99Us} us, ` +
      `${result.sequentialCallsPerSecond} calls/s one by one, ${result.concurrentCallsPerSecond} calls/s with 32 in flight, ` +
      `${result.replies32KiBMBps} MB/s in 32 KiB replies, ${result.replies1MiBMBps} MB/s in 1 MiB replies\n`,
  );
  return result;
}

async function sequential(
  call: () => Promise<unknown>,
  count: number,
): Promise<{ latencies: Float64Array; callsPerSecond: number }> {
  const latencies = new Float64Array(count);
  const start = performance.now();
  for (let i = 0; i < count; i++) {
    const before = performance.now();
    await call();
    latencies[i] = performance.now() - before;
  }
  return { latencies: latencies.sort(), callsPerSecond: (count / (performance.now() - start)) * 1000 };
}

async function concurrent(call: () => Promise<Uint8Array>, inFlight: number, count: number): Promise<number> {
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await call();
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: inFlight }, worker));
  return (count / (performance.now() - start)) * 1000;
}

async function throughput(client: TtrpcClient, bytes: number, count: number): Promise<number> {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(bytes);
  const call = async (): Promise<Uint8Array> => {
    const reply = await client.call(SERVICE, BYTES, size);
    if (reply.length !== bytes) throw new Error(`asked for ${bytes} bytes, got ${reply.length}`);
    return reply;
  };
  await concurrent(call, 4, Math.ceil(count / 10));
  return Math.round(((await concurrent(call, 4, count)) * bytes) / 1e6);
}

/** Of sorted milliseconds, in microseconds. */
function percentile(sorted: Float64Array, share: number): number {
  return Math.round((sorted[Math.floor((sorted.length - 1) * share)] ?? 0) * 10_000) / 10;
}

/** The answering process: serves until it is killed, or until the measuring process is gone. */
function serve(path: string): void {
  const server = new TtrpcServer();
  const reply = Buffer.alloc(1 << 20, 7);
  server.addHandler(SERVICE, ECHO, (payload) => Promise.resolve(payload));
  server.addHandler(SERVICE, BYTES, (payload) =>
    Promise.resolve(reply.subarray(0, Buffer.from(payload).readUInt32BE())),
  );
  process.on("disconnect", () => process.exit(0));
  createServer((socket) => socket.pipe(socket)).listen(`${path}.bare`, () => {
    createServer((socket) => server.accept(socket)).listen(path, () => process.send?.("listening"));
  });
}

if (import.meta.main) {
  const path = process.argv[2];
  if (path === undefined) await benchTtrpc();
  else serve(path);
}

import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TtrpcClient, TtrpcServer } from "../../src/ttrpc/index.ts";
import { inFlight, oneByOne, ownCpuSeconds } from "./measure.ts";
import { PeerProcess, serveMeasuringProcess } from "./peer-process.ts";

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
  /** Calls that one second of CPU time carries, both ends together. */
  readonly sequentialCallsPerCpuSecond: number;
  readonly concurrentCallsPerCpuSecond: number;
  /** MB/s (10^6 bytes) of reply payload, one call after the other, as a stream is read. */
  readonly sequentialReplies32KiBMBps: number;
  readonly sequentialReplies1MiBMBps: number;
  /** MB/s (10^6 bytes) of reply payload, 4 in flight. */
  readonly replies32KiBMBps: number;
  readonly replies1MiBMBps: number;
}

type Peer = PeerProcess<unknown>;

/**
 * Measures ttrpc between two processes over a unix socket: this one calls, a copy of it answers. Small calls carry 64 bytes
 * each way. Takes about 20 s.
 */
export async function benchTtrpc(): Promise<TtrpcBenchResult> {
  const folder = await mkdtemp(join(tmpdir(), "bench-ttrpc-"));
  const path = join(folder, "s");
  try {
    await using peer: Peer = await PeerProcess.start({ script: import.meta.filename, args: [path] });
    using client = new TtrpcClient(connect(path));
    return await measure(client, peer, await bareSocket(`${path}.bare`));
  } finally {
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
  await oneByOne(call, 10_000);
  const { p50Us } = await oneByOne(call, 20_000);
  socket.destroy();
  return p50Us;
}

async function measure(client: TtrpcClient, peer: Peer, bareSocketP50Us: number): Promise<TtrpcBenchResult> {
  const payload = Buffer.alloc(64, 7);
  const small = (): Promise<Uint8Array> => client.call(SERVICE, ECHO, payload);
  await oneByOne(small, 20_000); // compiles both sides
  const [single, singleCpu] = await withCpu(peer, () => oneByOne(small, 40_000));
  await inFlight(small, 32, 20_000);
  const [concurrentCallsPerSecond, concurrentCpu] = await withCpu(peer, () => inFlight(small, 32, 200_000));
  return {
    bareSocketP50Us,
    sequentialP50Us: single.p50Us,
    sequentialP99Us: single.p99Us,
    sequentialCallsPerSecond: single.callsPerSecond,
    concurrentCallsPerSecond,
    sequentialCallsPerCpuSecond: Math.round(40_000 / singleCpu),
    concurrentCallsPerCpuSecond: Math.round(200_000 / concurrentCpu),
    sequentialReplies32KiBMBps: await throughput(client, 32 << 10, 1, 10_000),
    sequentialReplies1MiBMBps: await throughput(client, 1 << 20, 1, 1_000),
    replies32KiBMBps: await throughput(client, 32 << 10, 4, 20_000),
    replies1MiBMBps: await throughput(client, 1 << 20, 4, 1_000),
  };
}

/** What `work` gives, and the CPU seconds that both ends spent on it. */
export async function withCpu<T>(peer: Peer, work: () => Promise<T>): Promise<[T, number]> {
  const before = ownCpuSeconds() + (await peer.cpuSeconds());
  const result = await work();
  return [result, ownCpuSeconds() + (await peer.cpuSeconds()) - before];
}

async function throughput(client: TtrpcClient, bytes: number, width: number, count: number): Promise<number> {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(bytes);
  const call = async (): Promise<void> => {
    const reply = await client.call(SERVICE, BYTES, size);
    if (reply.length !== bytes) throw new Error(`asked for ${bytes} bytes, got ${reply.length}`);
  };
  await inFlight(call, width, Math.ceil(count / 10));
  return Math.round(((await inFlight(call, width, count)) * bytes) / 1e6);
}

/** The answering process. */
function serve(path: string): void {
  const server = new TtrpcServer();
  const reply = Buffer.alloc(1 << 20, 7);
  server.addHandler(SERVICE, ECHO, (payload) => Promise.resolve(payload));
  server.addHandler(SERVICE, BYTES, (payload) =>
    Promise.resolve(reply.subarray(0, Buffer.from(payload).readUInt32BE())),
  );
  createServer((socket) => socket.pipe(socket)).listen(`${path}.bare`, () => {
    createServer((socket) => server.accept(socket)).listen(path, () => serveMeasuringProcess("listening"));
  });
}

if (import.meta.main) {
  const path = process.argv[2];
  if (path === undefined) console.log(await benchTtrpc());
  else serve(path);
}

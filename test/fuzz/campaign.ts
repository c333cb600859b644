import { once } from "node:events";
import type { Duplex } from "node:stream";
import { setTimeout as delay, setImmediate as turn } from "node:timers/promises";
import { mutateBytes, mutateFrame } from "./mutate.ts";
import type { Random } from "./random.ts";
import type { Target, Usage } from "./target.ts";
import { requestFrame } from "./wire.ts";

export interface CampaignResult {
  readonly frames: number;
  readonly connections: number;
  /** What must not have happened: a dead process, an unanswered probe, a leak. */
  readonly problems: readonly string[];
  readonly before: Usage;
  readonly after: Usage;
}

const CONNECTIONS_AT_ONCE = 12;
const MAX_FRAMES_A_CONNECTION = 120;
const PROBE_EVERY_MS = 500;
/** How long a server may take to hang up on a peer that has ended, ms. */
const HANG_UP_MS = 200;
/** Handlers of the last connections end, sockets close: the guest gives the sender of a tree 10 s to hang up. */
const SETTLE_MS = 15_000;
const LOOK_MS = 500;
const MIB = 1 << 20;
/** Growth that is no leak: the heap keeps room, code gets compiled. */
const USED_SLACK = 24 * MIB;
const RSS_SLACK = 160 * MIB;
const DESCRIPTOR_SLACK = 8;

/** Sends `frames` mutated frames, a tenth of them as a warm-up, then compares what the process holds. */
export async function attack(target: Target, frames: number, r: Random): Promise<CampaignResult> {
  const problems: string[] = [];
  const sent = { frames: 0, connections: 0 };
  const warmUp = Math.ceil(frames / 10);
  await target.probe();
  await burst(target, warmUp, r, sent, problems);
  const before = await settled(target);
  await burst(target, frames - warmUp, r, sent, problems);
  if (target.ended() === undefined)
    await target.probe().catch((e) => problems.push(`no answer afterwards: ${String(e)}`));
  const ended = target.ended();
  if (ended !== undefined) problems.push(`the process ended: ${ended}`);
  const after = ended === undefined ? await settled(target, before) : before;
  problems.push(...leaks(before, after));
  return { ...sent, problems, before, after };
}

async function burst(
  target: Target,
  frames: number,
  r: Random,
  sent: { frames: number; connections: number },
  problems: string[],
): Promise<void> {
  const end = sent.frames + frames;
  const prober = new AbortController();
  const probing = probeUntil(target, prober.signal, problems);
  const worker = async (): Promise<void> => {
    while (sent.frames < end && target.ended() === undefined && problems.length === 0) {
      const wanted = Math.min(end - sent.frames, 1 + r.below(MAX_FRAMES_A_CONNECTION));
      sent.frames += wanted; // taken, so that all workers together send as many as were asked for
      const done = await talk(target, wanted, r).catch((e: unknown) => {
        if (target.ended() === undefined) problems.push(`cannot connect: ${String(e)}`);
        return wanted;
      });
      sent.frames -= wanted - done;
      sent.connections += 1;
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS_AT_ONCE }, worker));
  prober.abort();
  await probing;
}

async function probeUntil(target: Target, end: AbortSignal, problems: string[]): Promise<void> {
  while (!end.aborted && target.ended() === undefined) {
    await target.probe().catch((e: unknown) => {
      if (target.ended() === undefined) problems.push(`no answer meanwhile: ${String(e)}`);
    });
    await delay(PROBE_EVERY_MS, undefined, { signal: end }).catch(() => undefined); // told to end
  }
}

/** One connection. @returns how many frames were written before the peer hung up */
async function talk(target: Target, wanted: number, r: Random): Promise<number> {
  const other = target.garbage !== undefined && r.chance(0.1) ? target.garbage(r) : undefined;
  const socket = await (other ?? target).connect();
  let open = true;
  const closed = new Promise<void>((resolve) => socket.once("close", resolve)).then(() => {
    open = false;
  });
  socket.on("error", () => undefined); // the peer may hang up on us at any point
  socket.resume();
  const next = other === undefined ? frames(target, r) : () => mutateBytes(other.bytes, r);
  let done = 0;
  while (done < wanted && open) {
    const batch = Math.min(wanted - done, r.chance(0.5) ? 1 + r.below(20) : 1);
    const bytes = Buffer.concat(Array.from({ length: batch }, next));
    await write(socket, bytes, r, () => open, closed);
    done += batch;
  }
  await hangUp(socket, r, closed, next);
  return done;
}

function frames(target: Target, r: Random): () => Buffer {
  let streamId = 1;
  return () => {
    const { service, method, payload } = r.pick(target.samples);
    const body = r.chance(0.6) ? mutateBytes(payload, r) : payload;
    const frame = requestFrame(streamId, service, method, body);
    streamId += 2;
    return mutateFrame(frame, r);
  };
}

/** In one piece, or cut anywhere with a pause between. */
async function write(
  socket: Duplex,
  bytes: Buffer,
  r: Random,
  open: () => boolean,
  closed: Promise<void>,
): Promise<void> {
  const pieces = r.chance(0.2) ? 1 + r.below(4) : 1;
  const cuts = [0, ...Array.from({ length: pieces - 1 }, () => r.below(bytes.length + 1)).sort((a, b) => a - b)];
  for (const [i, from] of cuts.entries()) {
    if (!open()) return;
    if (i > 0) await turn();
    const room = socket.write(bytes.subarray(from, cuts[i + 1] ?? bytes.length));
    // A server that was told of 4 GiB to come reads them; one that waits for us does not.
    if (!room) await Promise.race([once(socket, "drain"), closed, delay(HANG_UP_MS)]).catch(() => undefined);
  }
}

/** Politely, at once, or in the middle of a frame. */
async function hangUp(socket: Duplex, r: Random, closed: Promise<void>, next: () => Buffer): Promise<void> {
  const how = r.below(3);
  if (how === 0) {
    socket.end();
    await Promise.race([closed, delay(HANG_UP_MS, undefined, { ref: false })]);
  } else if (how === 1) {
    const bytes = next();
    socket.write(bytes.subarray(0, r.below(bytes.length + 1)));
    await turn();
  }
  socket.destroy();
  await closed;
}

/** What the process holds once the last connections are over, or after SETTLE_MS. */
async function settled(target: Target, before?: Usage): Promise<Usage> {
  let usage = await target.usage();
  for (const end = performance.now() + SETTLE_MS; performance.now() < end; ) {
    await delay(LOOK_MS);
    const now = await target.usage();
    const quiet = now.usedBytes > usage.usedBytes * 0.97 && now.descriptors === usage.descriptors;
    usage = now;
    if (quiet && (before === undefined || leaks(before, usage).length === 0)) break;
  }
  return usage;
}

function leaks(before: Usage, after: Usage): string[] {
  const problems: string[] = [];
  const check = (what: string, from: number, to: number, slack: number, unit: (n: number) => string): void => {
    if (to > from + slack) problems.push(`${what} grew from ${unit(from)} to ${unit(to)}`);
  };
  const mib = (n: number): string => `${Math.round(n / MIB)} MiB`;
  check("descriptors", before.descriptors, after.descriptors, DESCRIPTOR_SLACK, String);
  check("memory in use", before.usedBytes, after.usedBytes, USED_SLACK, mib);
  check("resident memory", before.rssBytes, after.rssBytes, RSS_SLACK, mib);
  return problems;
}

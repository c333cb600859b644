import { quantile } from "../measure.ts";
import { SimulatedAdaptor } from "./simulated-adaptor.ts";

/** How long new pods wait for the adaptor's answer, in real time, beside many that run. */
export interface ReconcileLatency {
  readonly sandboxes: number;
  /** ms, without and with reconcile passes over all sandboxes. */
  readonly quiet: { readonly p50: number; readonly p99: number };
  readonly during: { readonly p50: number; readonly p99: number };
  readonly passes: number;
}

const PROBES = 200;
const EVERY_MS = 20;
/** Long enough for each loop to have its turn. */
const TURNS_MS = 120_000;

/** Makes so many sandboxes that are ready, then starts new ones steadily while the loops look at them all. */
export async function reconcileLatency(sandboxes: number): Promise<ReconcileLatency> {
  await using world = await SimulatedAdaptor.open();
  // Buckets would make this take an hour of the simulation's time, with a listing every minute.
  const { knobs } = world.ec2.service.account;
  knobs.buckets.clear();
  knobs.resourceBuckets.clear();
  await world.clock.run(world.makeReady(sandboxes));
  // At the pace of real time: no listing falls into these seconds.
  const quiet = await probeWhile(world, async () => {
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    await passTime(world, EVERY_MS);
  });
  const listed = world.ec2.calls.get("DescribeInstances") ?? 0;
  // As fast as it goes: one pass after the other.
  const during = await probeWhile(world, () => passTime(world, TURNS_MS));
  const passes = (world.ec2.calls.get("DescribeInstances") ?? 0) - listed;
  return { sandboxes, quiet: summary(quiet), during: summary(during), passes };
}

async function probeWhile(world: SimulatedAdaptor, step: () => Promise<void>): Promise<readonly number[]> {
  let probing = true;
  const probes = probe(world).finally(() => {
    probing = false;
  });
  while (probing) await step();
  return probes;
}

function passTime({ clock }: SimulatedAdaptor, ms: number): Promise<void> {
  return clock.run(new Promise<void>((resolve) => clock.after(ms, resolve)));
}

/** One new pod every few ms of real time. @returns from when it was due until the adaptor had accepted it, ms */
async function probe(world: SimulatedAdaptor): Promise<readonly number[]> {
  const began = performance.now();
  const probes = Array.from({ length: PROBES }, async (_, n) => {
    const due = n * EVERY_MS;
    await new Promise((resolve) => setTimeout(resolve, due));
    await world.acceptPod();
    return performance.now() - began - due;
  });
  return Promise.all(probes);
}

function summary(latencies: readonly number[]): { readonly p50: number; readonly p99: number } {
  return { p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) };
}

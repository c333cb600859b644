import { ownCpuSeconds } from "../measure.ts";
import { SimulatedAdaptor } from "./simulated-adaptor.ts";
import { EC2_LIMITS } from "./simulated-ec2.ts";

/** What one burst of pods took; times are the simulation's. */
export interface Burst {
  readonly pods: number;
  readonly readySeconds: number;
  /** What the buckets alone allow. */
  readonly limitSeconds: number;
  readonly goneSeconds: number;
  readonly calls: ReadonlyMap<string, number>;
  readonly launchCalls: number;
  readonly callsPerPod: number;
  readonly throttled: number;
  /** Instances, disks and interfaces that are left when all pods are deleted. */
  readonly leftovers: number;
  /** Of this process, the simulated account included. */
  readonly cpuMsPerPod: number;
  /** Heap of a sandbox that waits for its VM, its node's call included, KiB. */
  readonly waitingKiB: number;
  /** In the store, KiB. */
  readonly storedKiB: number;
  readonly realSeconds: number;
}

/** Source: EC2 API reference, RunInstances: 100 instances a request. */
const BATCH = 100;

/** @returns seconds until the last of so many instances can have been asked for, whoever asks */
export function limitSeconds(pods: number): number {
  const { launchInstances, launchRequests } = EC2_LIMITS;
  const instances = (pods - launchInstances.capacity) / launchInstances.refillPerSecond;
  const requests = (batchingBound(pods) - launchRequests.capacity) / launchRequests.refillPerSecond;
  return Math.max(0, instances, requests);
}

/** Fewest launch requests for so many pods that come at once and that the instances' bucket holds. */
export function batchingBound(pods: number): number {
  return Math.ceil(pods / BATCH);
}

/** Starts so many pods at once, waits until all are ready, stops them all and waits until nothing is left. */
export async function burst(pods: number): Promise<Burst> {
  const began = performance.now();
  const cpuBefore = ownCpuSeconds();
  await using world = await SimulatedAdaptor.open();
  const { clock, ec2 } = world;
  const at = (): number => clock.now().getTime() / 1000;
  const start = at();
  const heapBefore = heapAfterGc();
  const starting = Promise.all(Array.from({ length: pods }, () => world.startPod()));
  starting.catch(() => undefined); // seen below
  await clock.run(new Promise<void>((resolve) => clock.after(10, resolve)));
  const waitingKiB = (heapAfterGc() - heapBefore) / 1024 / pods;
  const ready = await clock.run(starting);
  const readySeconds = at() - start;
  await clock.run(world.untilTagged(pods));
  const storedKiB = await storedKiBPerPod(world, pods);
  const stopped = at();
  const stopAll = async (): Promise<void> => {
    await Promise.all(ready.map((id) => world.stopPod(id)));
    await world.untilGone();
  };
  await clock.run(stopAll());
  const goneSeconds = at() - stopped;
  const calls = new Map(ec2.calls);
  // EC2 still shows what it ends for a while.
  await clock.run(new Promise<void>((resolve) => clock.after(60_000, resolve)));
  return {
    ...{ pods, readySeconds, limitSeconds: limitSeconds(pods), goneSeconds, calls, throttled: ec2.throttled },
    launchCalls: calls.get("RunInstances") ?? 0,
    callsPerPod: [...calls.values()].reduce((sum, n) => sum + n, 0) / pods,
    leftovers: ec2.service.account.leftovers().length,
    cpuMsPerPod: ((ownCpuSeconds() - cpuBefore) * 1000) / pods,
    ...{ waitingKiB, storedKiB, realSeconds: (performance.now() - began) / 1000 },
  };
}

async function storedKiBPerPod({ engine }: SimulatedAdaptor, pods: number): Promise<number> {
  const { sandboxes, operations } = engine.store;
  const all = [...(await sandboxes.list()), ...(await operations.list())];
  return all.reduce((sum, record) => sum + JSON.stringify(record).length, 0) / 1024 / pods;
}

function heapAfterGc(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

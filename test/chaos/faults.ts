import { setTimeout as delay } from "node:timers/promises";
import type { World } from "./world.ts";

/** What breaks at a step. `downMs` is how long it stays so. */
export type Fault =
  | {
      readonly kind: "kill";
      readonly whom: "adaptor" | "adaptor-2" | "node" | "relay" | "redis";
      readonly downMs: number;
    }
  /** Whoever leads in a reconcile loop now, if it is known at that moment; both of two when each leads in some. */
  | { readonly kind: "kill-leader"; readonly downMs: number }
  /** `noticed`: the cloud knows that the VM is gone. */
  | { readonly kind: "kill-vm"; readonly noticed: boolean }
  | {
      readonly kind: "pause";
      readonly whom: "adaptor" | "adaptor-2" | "node" | "redis";
      readonly downMs: number;
    }
  /** One adaptor after the other is ended as a service manager does it, and the other version of it is started. */
  | { readonly kind: "upgrade"; readonly downMs: number }
  | { readonly kind: "redis-empty" | "redis-old" | "redis-failover" }
  | { readonly kind: "reboot-node" }
  /** It never comes back. */
  | { readonly kind: "lose-node" }
  /** The node's calls arrive again, more than once. */
  | { readonly kind: "repeat-calls" };

/**
 * Breaks something now: what can be done at once is done before this returns.
 * @returns resolves when it is whole again (or for good gone)
 */
export function strike(world: World, fault: Fault): Promise<void> {
  world.timeline.note(`FAULT ${describeFault(fault)}`);
  switch (fault.kind) {
    case "kill":
      return kill(world, fault.whom, fault.downMs);
    case "kill-leader":
      return killLeader(world, fault.downMs);
    case "upgrade":
      return upgrade(world, fault.downMs);
    case "kill-vm":
      world.timeline.note(`killed VM ${world.cloud.killNewest(fault.noticed) ?? "(there is none)"}`);
      return Promise.resolve();
    case "pause":
      return pause(world, fault.whom, fault.downMs);
    case "redis-empty":
      return redisOf(world).restartEmpty();
    case "redis-old":
      return redisOf(world).restoreSnapshot();
    case "redis-failover":
      return redisOf(world).failOver();
    case "reboot-node":
      return world.reboot();
    case "lose-node":
      world.node.kill();
      world.killRelay();
      world.containerd.forget();
      return Promise.resolve();
    case "repeat-calls":
      return repeatCalls(world);
  }
}

export function describeFault(fault: Fault): string {
  const { kind, ...rest } = fault;
  return [
    kind,
    ...Object.entries(rest).map(([key, value]) => (key === "whom" ? String(value) : `${key}=${value}`)),
  ].join(" ");
}

async function kill(world: World, whom: (Fault & { kind: "kill" })["whom"], downMs: number): Promise<void> {
  if (whom === "relay") {
    return world.untilRelayServes(world.killRelay());
  }
  if (whom === "redis") {
    const killed = redisOf(world).server.kill();
    await killed;
    await delay(downMs);
    return redisOf(world).server.restart();
  }
  const daemon = world.daemon(whom);
  daemon.kill();
  await delay(downMs);
  await daemon.start();
  world.timeline.note(`${whom} is back`);
}

async function killLeader(world: World, downMs: number): Promise<void> {
  const leaders = await world.leaders();
  world.timeline.note(`${leaders.length} of ${world.adaptors.length} adaptors lead`);
  for (const { process } of leaders.slice(0, 1)) process.kill();
  await delay(downMs);
  for (const { process } of leaders.slice(0, 1)) await process.start();
}

async function upgrade(world: World, downMs: number): Promise<void> {
  for (const { process, changeVersion } of world.adaptors) {
    await process.stop();
    changeVersion();
    await delay(downMs);
    await process.start();
    world.timeline.note(`${process.name} is back`);
  }
}

async function pause(world: World, whom: (Fault & { kind: "pause" })["whom"], downMs: number): Promise<void> {
  if (whom === "redis") redisOf(world).server.pause();
  else world.daemon(whom).freeze();
  await delay(downMs);
  if (whom === "redis") redisOf(world).server.resume();
  else world.daemon(whom).thaw();
  world.timeline.note(`${whom} goes on`);
}

function redisOf({ redis }: World): NonNullable<World["redis"]> {
  if (redis === undefined) throw new Error("a case that breaks Redis needs store: redis");
  return redis;
}

/** CreateVM, StartVM, and for what is being stopped StopVM, of every sandbox that is not over, three times at once. */
async function repeatCalls(world: World): Promise<void> {
  const client = world.adaptorClient();
  try {
    const view = await world.view().catch(() => undefined);
    if (view === undefined) return; // no adaptor runs that could be called
    const { sandboxes } = view;
    const call = () => ({ signal: AbortSignal.timeout(10_000) });
    const ignore = (): undefined => undefined; // refused or not: what it does to the VMs is what counts
    const again = async (id: string, phase: string, name: string): Promise<void> => {
      if (phase === "gone" || phase === "failed") return;
      if (phase === "stopping") return void (await client.stopVm({ sandboxId: id }, call()).catch(ignore));
      const pod = { namespace: "default", name, uid: "" };
      await client
        .createVm(
          { sandboxId: id, nodeId: world.nodeId, pod, containerdNamespace: "default", containerdId: name },
          call(),
        )
        .catch(ignore);
      for await (const _ of client.startVm({ sandboxId: id }, call()));
    };
    const calls = sandboxes.flatMap(({ id, phase, pod }) =>
      [1, 2, 3].map(() => again(id, phase, pod.name).catch(ignore)),
    );
    await Promise.all(calls);
  } finally {
    client.close();
  }
}

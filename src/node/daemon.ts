import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { markHeapWhenFull } from "../base/buffer-heap.ts";
import { type Call, withDeadline } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate } from "../base/files.ts";
import type { Logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { InProcessRelay, type Relay, type RelayOptions } from "../relay/index.ts";
import type { Hypervisor } from "../shim/hypervisor/index.ts";
import type { ShimDeps, ShimService } from "../shim/index.ts";
import type { NodeConfig } from "./config.ts";
import { Control } from "./control.ts";
import { SharedPodNetwork, StockDoor } from "./door/index.ts";
import { Doors } from "./doors.ts";
import { nodeId } from "./node-id.ts";
import { openPodNetwork } from "./podnetwork/index.ts";
import { setUpProcess } from "./process-setup.ts";
import { READY_FILE, Readiness } from "./readiness.ts";

export interface NodeDaemonDeps {
  readonly log: Logger;
  readonly createShim: (deps: ShimDeps) => ShimService;
  readonly openHypervisors: (
    config: NodeConfig,
    deps: { nodeId: string; bootId: string; log: Logger },
  ) => Promise<ReadonlyMap<string, Hypervisor>>;
  /** Something (systemd) starts the daemon again and ends it: no idle exit, no cgroup of its own. */
  readonly supervised: boolean;
  /** Whether to change this process (OOM score, cgroup, umask); false when others share it, as in tests. */
  readonly ownProcess: boolean;
  /** containerd's root directory, where it has other mounts than this process. */
  readonly hostRoot?: string | undefined;
  /** Where connections are held; by default in this process, which its pods then end with. */
  readonly openRelay?: (call: Call) => Promise<Relay>;
  /** containerd addresses to serve from the start. */
  readonly doors: readonly string[];
  readonly now?: () => number;
}

/** Budget of what is cleaned up before the first door opens, ms; what takes longer goes on behind it. */
const RECOVER_MS = 15_000;

/** The node daemon: one process that serves every pod of this node. */
export interface NodeDaemon {
  readonly nodeId: string;
  readonly shim: ShimService;
  readonly relay: Relay;
  /** Resolves when the daemon had no pod for so long that it wants to end. */
  readonly idle: Promise<void>;
  /** Opens the door of one more containerd, gives its address. */
  openDoor(containerdAddress: string): Promise<string>;
  /** Ends every pod, then everything else; repeatable. */
  close(reason: string): Promise<void>;
  /** Leaves the pods to the next daemon, where the relay is a process of its own. End this process right after it. */
  handOver(reason: string): Promise<void>;
  /** Resolves when somebody asked by the control socket for the end of all pods and of the daemon. */
  readonly drained: Promise<void>;
}

/**
 * Starts a node daemon: what an earlier one left is cleaned up, then doors and control socket open, then `node.ready`
 * says so. Whoever calls it holds the lock of the run directory.
 * @throws Fault when something it needs cannot be had; everything it opened is closed again
 */
export async function startNodeDaemon(config: NodeConfig, deps: NodeDaemonDeps, call: Call): Promise<NodeDaemon> {
  const { log } = deps;
  const { runDir, stateDir } = config;
  if (deps.ownProcess) await setUpProcess({ supervised: deps.supervised, log });
  await mkdirPrivate(runDir);
  await mkdirPrivate(stateDir);
  await rm(join(runDir, READY_FILE), { force: true }); // a killed daemon's

  const undo: ((reason: string) => Promise<void>)[] = [];
  let closing: Promise<void> | undefined;
  const close = (reason: string): Promise<void> => {
    closing ??= closeAll(undo, reason, log);
    return closing;
  };
  try {
    const id = await nodeId(stateDir);
    const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    const hypervisors = await deps.openHypervisors(config, { nodeId: id, bootId, log });
    undo.push(async () => {
      for (const hypervisor of hypervisors.values()) await hypervisor.close();
    });
    const { keepAliveMs, keepAliveDeadlineMs } = config;
    const relay: Relay = (await deps.openRelay?.(call)) ?? relayInside({ log, keepAliveMs, keepAliveDeadlineMs });
    undo.push(async () => relay[Symbol.asyncDispose]());
    const doors = new Doors({ runDir, relay, log });
    const podNetwork = openPodNetwork({ config: config.podNetwork, stateDir, log, hostRoot: deps.hostRoot });
    const { guestLostAfterMs } = config.shim;
    const stock =
      config.stock &&
      (await StockDoor.recover(config.stock, { hypervisors, relay, podNetwork, runDir, guestLostAfterMs, log }, call));
    undo.push(async () => stock?.close());
    const shim = deps.createShim({
      relay,
      hypervisors,
      podNetwork: podNetwork && new SharedPodNetwork(podNetwork, () => stock?.liveSandboxes() ?? []),
      isForeign: (id) => stock?.liveSandboxes().includes(id) ?? false,
      config: config.shim,
      log,
      runDir,
      doorAddress: (door) => doors.addressOf(door),
    });
    undo.push((reason) => shim.close(reason));
    const scope = new AbortController();
    undo.push(async () => scope.abort(new Fault("cancelled", "the node daemon ends")));
    // Without what an earlier daemon left, its living pods would be taken for nobody's.
    await shim.recover(withDeadline(RECOVER_MS, call));
    await doors.load(); // before calls come that name them
    await relay.onTaskRequest((request, c) => shim.answer(request, c));
    const owners = stock === undefined ? [shim] : [shim, stock];
    for (const hypervisor of hypervisors.values()) follow(hypervisor, owners, log, { signal: scope.signal });

    await stock?.open();
    await doors.reopen();
    for (const address of deps.doors) await doors.open(address);
    const { promise: drained, resolve: onDrain } = Promise.withResolvers<void>();
    const control = await Control.open({ runDir, nodeId: id, doors, shim, log, onDrain });
    undo.push(() => control.close());

    const { promise: idle, resolve: onIdle } = Promise.withResolvers<void>();
    const readiness = new Readiness({
      ...{ runDir, log, onIdle },
      podCount: () => shim.sandboxCount(),
      // Nothing would start it again for a stock shim.
      idleExitMs: deps.supervised || stock !== undefined ? undefined : config.idleExitMs,
      now: deps.now ?? Date.now,
    });
    undo.push(() => readiness.withdraw());
    await readiness.announce();
    log.info({ node: id, version: VERSION, runDir, hypervisors: [...hypervisors.keys()] }, "node daemon serves");
    const handOver = async (reason: string): Promise<void> => {
      await readiness.withdraw();
      await control.close();
      await shim.handOver(reason);
      await relay.handOver();
      log.info({ reason }, "node daemon ends, its pods go on");
    };
    return { nodeId: id, shim, relay, idle, drained, openDoor: (address) => doors.open(address), close, handOver };
  } catch (e) {
    await close("the node daemon could not start");
    throw e;
  }
}

/**
 * Has a backend stop what no pod of this daemon owns, and listens to it. Nobody waits for that: a backend that cannot be
 * reached must not keep the others' pods from starting, and it is told again as soon as it can.
 */
function follow(
  hypervisor: Hypervisor,
  owners: readonly Pick<ShimService, "liveSandboxes" | "onVmLoss">[],
  log: Logger,
  call: Call,
): void {
  const live = owners.flatMap((owner) => owner.liveSandboxes(hypervisor.name));
  hypervisor.sync(live, call).catch((err: unknown) => {
    if (!call.signal.aborted) log.warn({ hypervisor: hypervisor.name, err }, "backend is not in step yet");
  });
  hypervisor
    .watch((loss) => {
      for (const owner of owners) owner.onVmLoss(loss);
    }, call)
    .catch((err: unknown) => {
      log.error({ hypervisor: hypervisor.name, err }, "watch ended: lost VMs are only noticed by their connections");
    });
}

/** A relay in this process: what flows through it is more than what the daemon itself allocates. */
function relayInside(options: RelayOptions): Relay {
  markHeapWhenFull();
  return new InProcessRelay(options);
}

async function closeAll(undo: ((reason: string) => Promise<void>)[], reason: string, log: Logger): Promise<void> {
  for (const step of undo.reverse()) {
    try {
      await step(reason);
    } catch (err) {
      log.error({ err }, "a part of the node daemon did not close");
    }
  }
}

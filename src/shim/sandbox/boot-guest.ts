import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { parseSandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { Storage } from "../../gen/agent/agent.ts";
import { PACKED_FILES } from "../../guestwire/index.ts";
import type { PodNetns, PodNetwork, PodNetworkPlan } from "../../podnetwork/index.ts";
import type { GuestFacts, Relay } from "../../relay/index.ts";
import { type Agent, SANDBOX_SHM } from "../agent/index.ts";
import type { Hypervisor, VmAddress } from "../hypervisor/index.ts";
import type { ShimConfig } from "../shim-config.ts";
import type { ShimSandboxStatus } from "../shim-service.ts";
import { cloudVolumes } from "../volumes/index.ts";
import { holdProcesses } from "./hold-processes.ts";
import type { PodRequest } from "./pod-request.ts";
import type { SandboxState, SandboxStateStore } from "./sandbox-state.ts";
import type { Stopwatch } from "./stopwatch.ts";

export interface BootDeps {
  readonly relay: Pick<Relay, "connectGuest">;
  readonly hypervisor: Hypervisor;
  readonly podNetwork?: PodNetwork | undefined;
  readonly config: ShimConfig;
  readonly states: SandboxStateStore;
  readonly agent: Agent;
  readonly record: SandboxState;
  readonly pod: ShimSandboxStatus["pod"];
  readonly stopwatch: Stopwatch;
  readonly onInstance: (instanceId: string) => void;
  readonly log: Logger;
}

export interface BootedGuest {
  readonly facts: GuestFacts;
  readonly supportsSeccomp: boolean;
  readonly packsFiles: boolean;
}

/** Source: Linux default size that container runtimes give /dev/shm. */
const DEFAULT_SHM_BYTES = 67_108_864;
/** Source: Linux HOST_NAME_MAX. */
const HOSTNAME_BYTES = 64;

/**
 * Brings a pod's VM up: record, createVm, startVm, pod network, tunnel, agent handshake. Each stage may run twice; whoever calls undoes
 * them all with stopVm, which takes any state.
 * @throws Fault that names the stage, the instance and where to look
 */
export async function bootGuest(deps: BootDeps, pod: PodRequest, call: Call): Promise<BootedGuest> {
  const { stopwatch } = deps;
  const netns = await inspectNetwork(deps, call);
  // Intent before effect: from here on a killed daemon's successor finds the VM.
  await stage("write the sandbox's state file", () => deps.states.write(deps.record));
  await createVm(deps, pod, call);
  stopwatch.mark("created");
  const address = await startVm(deps, pod.overrides.startVmTimeoutMs ?? deps.config.startVmTimeoutMs, call);
  deps.onInstance(address.instanceId);
  stopwatch.mark("address");
  const plan = netns === undefined ? undefined : await attachNetwork(deps, netns, address, call);
  const facts = await connect(deps, pod, address, plan, call);
  if (plan?.tunnel.kind === "wireguard") await completeNetwork(deps, facts, call);
  const features = await handshake(deps, pod, call);
  stopwatch.mark("sandbox");
  // Only the backend's record becomes nicer by it; the pod runs already.
  deps.hypervisor
    .reportReady(parseSandboxId(deps.record.sandboxId), withDeadline(60_000), {
      nodeRootfsAllowed: nodeRootfsAllowed(pod.overrides),
    })
    .catch((err: unknown) =>
      deps.log.warn({ err, sandbox: deps.record.sandboxId }, "backend not told that the agent answered"),
    );
  return { facts, ...features };
}

async function createVm(deps: BootDeps, pod: PodRequest, call: Call): Promise<void> {
  const { record, hypervisor } = deps;
  const { overrides } = pod;
  const volumes = await cloudVolumes(deps.config.directVolumesDir, deps.pod.uid, deps.log);
  const request = {
    sandboxId: parseSandboxId(record.sandboxId),
    pod: deps.pod,
    containerd: { namespace: record.namespace, id: record.id },
    ...pod.size,
    ...(overrides.instanceType === undefined ? {} : { instanceType: overrides.instanceType }),
    ...(overrides.image === undefined ? {} : { image: overrides.image }),
    ...(volumes.length === 0 ? {} : { volumes: volumes.map((volume) => volume.diskId) }),
  };
  await stage(`reserve a VM from hypervisor "${hypervisor.name}"`, () => hypervisor.createVm(request, call));
}

async function startVm(deps: BootDeps, timeoutMs: number, call: Call): Promise<VmAddress> {
  const { record, hypervisor } = deps;
  const id = parseSandboxId(record.sandboxId);
  return await stage(`start the pod VM (sandbox ${record.sandboxId})`, () =>
    hypervisor.startVm(id, withDeadline(timeoutMs, call)),
  );
}

/** Before any VM is asked for: what the CNI made must be something that can be carried over. */
async function inspectNetwork(deps: BootDeps, call: Call): Promise<PodNetns | undefined> {
  const { netnsPath } = deps.record;
  if (deps.podNetwork === undefined || netnsPath === undefined) return undefined;
  const { podNetwork } = deps;
  return await stage("read the pod's network", () => podNetwork.inspect(netnsPath, call));
}

async function attachNetwork(
  deps: BootDeps,
  netns: PodNetns,
  { addresses }: VmAddress,
  call: Call,
): Promise<PodNetworkPlan | undefined> {
  const { podNetwork, record, log, stopwatch } = deps;
  const { sandboxId, netnsPath } = record;
  if (podNetwork === undefined || netnsPath === undefined) return undefined;
  const target = { sandboxId, netnsPath };
  const plan = await stage(`carry the pod's network to its VM at ${addresses.join(", ")}`, () =>
    podNetwork.attach(target, netns, addresses, call),
  );
  stopwatch.mark("network");
  if (plan === undefined)
    log.warn(
      { sandbox: sandboxId, addresses },
      "the pod has no network but its own localhost: its VM is behind QEMU's user-mode network, which carries no tunnel",
    );
  return plan;
}

/** The guest has made its end of the tunnel, and its key for it. */
async function completeNetwork(deps: BootDeps, { tunnelKey = "" }: GuestFacts, call: Call): Promise<void> {
  const { podNetwork, record } = deps;
  const { sandboxId, netnsPath = "" } = record;
  await stage("exchange keys for the pod's network with its VM", async () =>
    podNetwork?.complete({ sandboxId, netnsPath }, tunnelKey, call),
  );
}

async function connect(
  deps: BootDeps,
  pod: PodRequest,
  address: VmAddress,
  plan: PodNetworkPlan | undefined,
  call: Call,
): Promise<GuestFacts> {
  const { record, hypervisor, config, relay, stopwatch } = deps;
  const sandboxId = parseSandboxId(record.sandboxId);
  const bounded = withDeadline(config.connectTimeoutMs, call);
  let reached = "address";
  const what = (): string =>
    `reach the agent of pod VM ${address.instanceId} at ${address.addresses.join(", ")} port ${address.port} (last stage: ${reached}; see: kata-remote console ${record.sandboxId}; once the VM is gone: the log of the adaptor)`;
  return await stage(what, async () => {
    const identity = await hypervisor.clientIdentity(bounded);
    return await relay.connectGuest(
      {
        sandboxId,
        addresses: address.addresses,
        port: address.port,
        hostname: hostname(pod),
        ...(plan === undefined ? {} : { podNetworkJson: JSON.stringify(plan) }),
        identity,
        sign: (csrPem, c) => hypervisor.signGuest(sandboxId, csrPem, c),
        onStage: (name) => {
          reached = name;
          stopwatch.mark(name);
        },
        lostAfterMs: config.guestLostAfterMs,
      },
      bounded,
    );
  });
}

/** Source: reference §2.3, rows for remote. */
async function handshake(deps: BootDeps, pod: PodRequest, call: Call): Promise<Omit<BootedGuest, "facts">> {
  const { agent, record } = deps;
  const { policy } = pod.overrides;
  return await stage("set the pod up in its VM", async () => {
    await agent.check(call);
    if (policy !== undefined) await agent.setPolicy(policy, call);
    await agent.createSandbox(
      {
        hostname: hostname(pod),
        dns: [...pod.dns],
        storages: [shmStorage(pod)],
        sandboxPidns: false,
        sandboxId: record.id,
      },
      call,
    );
    if (pod.holdsProcesses) await holdProcesses(agent, record.id, call);
    const details = await agent.guestDetails(call);
    const { supportsSeccomp = false, extraFeatures = [] } = details.agentDetails ?? {};
    return { supportsSeccomp, packsFiles: extraFeatures.includes(PACKED_FILES) };
  });
}

function hostname(pod: PodRequest): string {
  return Buffer.from(pod.hostname).subarray(0, HOSTNAME_BYTES).toString("utf8");
}

function shmStorage({ shmBytes }: PodRequest): Storage {
  return Storage.fromPartial({
    driver: "ephemeral",
    source: "shm",
    fstype: "tmpfs",
    options: ["noexec", "nosuid", "nodev", "mode=1777", `size=${shmBytes ?? DEFAULT_SHM_BYTES}`],
    mountPoint: SANDBOX_SHM,
  });
}

function nodeRootfsAllowed({ confidential, guestPull, allowNodeRootfs }: PodRequest["overrides"]): boolean {
  return confidential === true && guestPull === false && allowNodeRootfs === true;
}

/** Says in which stage something failed. */
async function stage<T>(what: string | (() => string), run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    const fault = Fault.from(cause);
    const action = typeof what === "string" ? what : what();
    throw new Fault(fault.code, `cannot ${action}`, fault.context, { cause: fault, retryable: fault.retryable });
  }
}

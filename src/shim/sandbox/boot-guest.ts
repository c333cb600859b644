import { readFile } from "node:fs/promises";
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
import type { NodeFiles } from "../volumes/index.ts";
import type { PreparedContainer } from "./prepared-container.ts";
import type { SandboxState, SandboxStateStore } from "./sandbox-state.ts";
import { podSize } from "./sizing.ts";
import { tmpfsSize } from "./source-facts.ts";
import type { Stopwatch } from "./stopwatch.ts";

export interface BootDeps {
  readonly relay: Pick<Relay, "connectGuest">;
  readonly hypervisor: Hypervisor;
  readonly podNetwork?: PodNetwork | undefined;
  readonly config: ShimConfig;
  readonly states: SandboxStateStore;
  readonly files: NodeFiles;
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
export async function bootGuest(deps: BootDeps, prepared: PreparedContainer, call: Call): Promise<BootedGuest> {
  const { stopwatch } = deps;
  const netns = await inspectNetwork(deps, call);
  // Intent before effect: from here on a killed daemon's successor finds the VM.
  await stage("write the sandbox's state file", () => deps.states.write(deps.record));
  await createVm(deps, prepared, call);
  stopwatch.mark("created");
  const address = await startVm(deps, call);
  deps.onInstance(address.instanceId);
  stopwatch.mark("address");
  const plan = netns === undefined ? undefined : await attachNetwork(deps, netns, address, call);
  const facts = await connect(deps, prepared, address, plan, call);
  const features = await handshake(deps, prepared, call);
  stopwatch.mark("sandbox");
  // Only the backend's record becomes nicer by it; the pod runs already.
  deps.hypervisor
    .reportReady(parseSandboxId(deps.record.sandboxId), withDeadline(60_000))
    .catch((err: unknown) =>
      deps.log.warn({ err, sandbox: deps.record.sandboxId }, "backend not told that the agent answered"),
    );
  return { facts, ...features };
}

async function createVm(deps: BootDeps, prepared: PreparedContainer, call: Call): Promise<void> {
  const { record, pod, hypervisor } = deps;
  const { overrides } = prepared;
  const request = {
    sandboxId: parseSandboxId(record.sandboxId),
    pod,
    containerd: { namespace: record.namespace, id: record.id },
    ...podSize(prepared.spec, prepared.role, overrides),
    ...(overrides.instanceType === undefined ? {} : { instanceType: overrides.instanceType }),
    ...(overrides.image === undefined ? {} : { image: overrides.image }),
  };
  await stage(`reserve a VM from hypervisor "${hypervisor.name}"`, () => hypervisor.createVm(request, call));
}

async function startVm(deps: BootDeps, call: Call): Promise<VmAddress> {
  const { record, hypervisor, config } = deps;
  const id = parseSandboxId(record.sandboxId);
  return await stage(`start the pod VM (sandbox ${record.sandboxId})`, () =>
    hypervisor.startVm(id, withDeadline(config.startVmTimeoutMs, call)),
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

async function connect(
  deps: BootDeps,
  prepared: PreparedContainer,
  address: VmAddress,
  plan: PodNetworkPlan | undefined,
  call: Call,
): Promise<GuestFacts> {
  const { record, hypervisor, config, relay, stopwatch } = deps;
  const sandboxId = parseSandboxId(record.sandboxId);
  const bounded = withDeadline(config.connectTimeoutMs, call);
  let reached = "address";
  const what = (): string =>
    `reach the agent of pod VM ${address.instanceId} at ${address.addresses.join(", ")} port ${address.port} (last stage: ${reached}; see: kata-remote console ${record.sandboxId})`;
  return await stage(what, async () => {
    const identity = await hypervisor.clientIdentity(bounded);
    return await relay.connectGuest(
      {
        sandboxId,
        addresses: address.addresses,
        port: address.port,
        hostname: hostname(prepared),
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
async function handshake(deps: BootDeps, prepared: PreparedContainer, call: Call): Promise<Omit<BootedGuest, "facts">> {
  const { agent, record } = deps;
  const { policy } = prepared.overrides;
  return await stage("set the pod up in its VM", async () => {
    await agent.check(call);
    if (policy !== undefined) await agent.setPolicy(policy, call);
    await agent.createSandbox(
      {
        hostname: hostname(prepared),
        dns: await resolvConf(prepared),
        storages: [await shmStorage(prepared, deps.files)],
        sandboxPidns: false,
        sandboxId: record.id,
      },
      call,
    );
    const details = await agent.guestDetails(call);
    const { supportsSeccomp = false, extraFeatures = [] } = details.agentDetails ?? {};
    return { supportsSeccomp, packsFiles: extraFeatures.includes(PACKED_FILES) };
  });
}

function hostname(prepared: PreparedContainer): string {
  const name = prepared.spec.hostname ?? "";
  return Buffer.from(name === "" ? prepared.request.id : name)
    .subarray(0, HOSTNAME_BYTES)
    .toString("utf8");
}

async function resolvConf(prepared: PreparedContainer): Promise<string[]> {
  const source = prepared.spec.mounts?.find((m) => m.destination === "/etc/resolv.conf")?.source;
  if (source === undefined) return [];
  return (await readFile(source, "utf8")).split("\n").filter((line) => line !== "");
}

async function shmStorage(prepared: PreparedContainer, files: NodeFiles): Promise<Storage> {
  const shm = prepared.spec.mounts?.find((m) => m.destination === "/dev/shm");
  const bytes = shm?.source?.startsWith("/") ? await tmpfsSize(files.reach(shm.source)) : undefined;
  return Storage.fromPartial({
    driver: "ephemeral",
    source: "shm",
    fstype: "tmpfs",
    options: ["noexec", "nosuid", "nodev", "mode=1777", `size=${bytes ?? DEFAULT_SHM_BYTES}`],
    mountPoint: SANDBOX_SHM,
  });
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

import { join } from "node:path";
import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { parseSandboxId } from "../../base/ids.ts";
import { race, sleep } from "../../base/retry.ts";
import type { PodNetns } from "../../podnetwork/index.ts";
import type { GuestFacts, GuestSpec } from "../../relay/index.ts";
import type { VmAddress } from "../../shim/hypervisor/index.ts";
import type { StockDeps } from "./stock-deps.ts";
import type { StockState } from "./stock-state.ts";
import { OPERATOR_SERVER_NAME } from "./stock-tls.ts";
import { together } from "./together.ts";

/**
 * A stock shim mounts root filesystems at `<its sandbox id>/mounts/<container id>/rootfs` below it, whether or not there
 * is a shared filesystem. Source: kata-containers src/runtime/virtcontainers/fs_share_linux.go, kataHostSharedDir.
 */
const SHIM_MOUNTS = "/run/kata-containers/shared/sandboxes";
/** Source: wire contract §3.8: what the forwarder listens on unless told otherwise. */
const FORWARDER_PORT = 15_150;

/** The provider's call, and then the first packets to the guest, go out before this process is busy with the network, ms. */
const PROVIDER_FIRST_MS = 5;
const DIAL_FIRST_MS = 1;

/** What is known of a guest before it has an address. */
type GuestFace = Omit<GuestSpec, "addresses" | "port">;

/**
 * Brings the VM of a stock shim's pod up: address, tunnel, guest connection. May run again after any failure.
 * @param keep Writes the address down, once there is a tunnel to it
 * @throws Fault that names the stage
 */
export async function startStockPod(
  deps: StockDeps,
  state: StockState,
  keep: (address: VmAddress) => Promise<void>,
  call: Call,
): Promise<VmAddress> {
  const { hypervisor, config } = deps;
  const sandboxId = parseSandboxId(state.sandboxId);
  let early: Promise<GuestFace | undefined> = Promise.resolve(undefined);
  const [address, found] = await together(
    call,
    (c) => stage("start the pod VM", () => hypervisor.startVm(sandboxId, withDeadline(config.startVmTimeoutMs, c))),
    async (c) => {
      await sleep(PROVIDER_FIRST_MS, c);
      // Asked for while the VM is made; what fails is asked for once more below, and then says so.
      early = guestSpec(deps, state, call).catch(() => undefined);
      const netns = await inspect(deps, state, c);
      return netns && { netns, reserved: await reserve(deps, state, netns, c) };
    },
  );
  const tunnel = <T>(work: () => Promise<T>): Promise<T> => stage("bring the tunnel up", work);
  const { netns, reserved } = found ?? {};
  if (state.guest === "stock" || reserved !== undefined) {
    // The guest knows its network already, or what it will be: tunnel and connection do not wait for each other.
    const told = reserved === undefined ? state : { ...state, vnis: [...reserved] };
    const plan = reserved && (await tunnel(() => planned(deps, state, netns, address, call)));
    await together(
      call,
      (c) => connectStockPod(deps, state, address, c, { early, plan }),
      async (c) => {
        await sleep(DIAL_FIRST_MS, c);
        await tunnel(() => attach(deps, told, netns, address, c));
        await keep(address);
      },
    );
  } else {
    const plan = await tunnel(() => attach(deps, state, netns, address, call));
    await together(
      call,
      (c) => connectStockPod(deps, state, address, c, { early, plan }),
      () => keep(address),
    );
  }
  hypervisor.reportReady(sandboxId, withDeadline(60_000)).catch((err: unknown) => {
    deps.log.warn({ err, sandbox: sandboxId }, "backend not told that the agent answered");
  });
  return address;
}

/**
 * What a new daemon does with a pod of the one before whose guest is not connected. Ours may not have been told its network
 * yet. @throws Fault that names the stage
 */
export async function resumeStockPod(
  deps: StockDeps,
  state: StockState,
  address: VmAddress,
  call: Call,
): Promise<void> {
  if (state.guest === "stock") return connectStockPod(deps, state, address, call);
  const found = await inspect(deps, state, call);
  const plan = await stage("bring the tunnel up", () => attach(deps, state, found, address, call));
  await connectStockPod(deps, state, address, call, { plan });
}

/** As resumeStockPod, of a pod whose guest is connected: the daemon before may not have come as far as its key. */
export async function takeUpStockPod(
  deps: StockDeps,
  state: StockState,
  { tunnelKey }: GuestFacts,
  call: Call,
): Promise<void> {
  if (tunnelKey !== undefined) await stage("bring the tunnel up", () => complete(deps, state, tunnelKey, call));
  await openAgentSocket(deps, state);
}

/** Connects the guest and opens the agent socket. */
async function connectStockPod(
  deps: StockDeps,
  state: StockState,
  address: VmAddress,
  call: Call,
  known: { readonly plan?: object | undefined; readonly early?: Promise<GuestFace | undefined> } = {},
): Promise<void> {
  const { relay, config } = deps;
  const port = address.port === FORWARDER_PORT ? config.forwarderPort : address.port;
  const where = `${address.addresses.join(", ")} port ${port}`;
  await stage(`reach the agent of pod VM ${address.instanceId} at ${where}`, async () => {
    const bounded = withDeadline(config.connectTimeoutMs, call);
    const { plan } = known;
    const face =
      (await race(known.early ?? Promise.resolve(undefined), bounded)) ?? (await guestSpec(deps, state, bounded));
    const spec = { ...face, addresses: address.addresses, port };
    const whole = plan === undefined ? spec : { ...spec, podNetworkJson: JSON.stringify(plan) };
    const { tunnelKey } = await relay.connectGuest(whole, bounded);
    if (tunnelKey !== undefined) await complete(deps, state, tunnelKey, bounded);
  });
  await openAgentSocket(deps, state);
}

/** The guest has made its end of a tunnel with keys. Repeatable. */
async function complete(
  { podNetwork }: StockDeps,
  { sandboxId, netnsPath = "" }: StockState,
  tunnelKey: string,
  call: Call,
): Promise<void> {
  await podNetwork?.complete({ sandboxId, netnsPath }, tunnelKey, call);
}

/** The guest is connected. Repeatable. */
async function openAgentSocket({ relay, config }: StockDeps, state: StockState): Promise<void> {
  await relay.openAgentSocket({
    sandboxId: parseSandboxId(state.sandboxId),
    path: state.socketPath,
    directVolumesDir: config.directVolumesDir,
    podUid: "",
    ...(state.guest === "reference" ? { rootfsDir: join(SHIM_MOUNTS, state.id, "mounts") } : {}),
  });
}

async function guestSpec(deps: StockDeps, state: StockState, call: Call): Promise<GuestFace> {
  const { hypervisor, tls, guestLostAfterMs: lostAfterMs } = deps;
  const sandboxId = parseSandboxId(state.sandboxId);
  const common = { sandboxId, hostname: state.pod.name, lostAfterMs };
  if (state.guest === "reference") {
    const identity = await hypervisor.clientIdentity(call);
    return { ...common, identity, sign: (csrPem, c) => hypervisor.signGuest(sandboxId, csrPem, c) };
  }
  const sign = async (): Promise<never> => {
    throw new Fault("unimplemented", "a stock guest does not enrol", { sandboxId });
  };
  const profile = { minVersion: tls.minVersion, ...(tls.ciphers === undefined ? {} : { ciphers: tls.ciphers }) };
  if (tls.operator !== undefined)
    return { ...common, sign, identity: tls.operator, stock: { serverName: OPERATOR_SERVER_NAME, ...profile } };
  const known = await hypervisor.stockIdentity(sandboxId, call);
  const { caPem, certificatePem, keyPem, serverName, serverCertificatePem } = known;
  const stock = { serverName, certificatePem: serverCertificatePem, ...profile };
  return { ...common, sign, identity: { caPem, certificatePem, keyPem }, stock };
}

async function inspect({ podNetwork }: StockDeps, state: StockState, call: Call): Promise<PodNetns | undefined> {
  const { netnsPath } = state;
  if (podNetwork === undefined || netnsPath === undefined) return undefined;
  return await stage("read the pod's network", () => podNetwork.inspect(netnsPath, call));
}

/** The numbers of a tunnel whose guest is told them later are on disk before it has an address. */
async function reserve(
  { podNetwork, config, log }: StockDeps,
  { guest, netnsPath, sandboxId }: StockState,
  found: PodNetns,
  call: Call,
): Promise<readonly number[] | undefined> {
  if (guest === "stock" || podNetwork === undefined || netnsPath === undefined) return undefined;
  try {
    const count = found.interfaces.length;
    const { vnis, written } = await podNetwork.reserve({ sandboxId, netnsPath }, count, config.hostInterface, call);
    await written;
    return vnis;
  } catch (err) {
    // The attach takes them then, and says what is wrong: this host need not have a default route for it.
    log.debug({ err, sandbox: sandboxId }, "a tunnel is not prepared");
    return undefined;
  }
}

async function planned(
  { podNetwork }: StockDeps,
  { sandboxId, netnsPath = "" }: StockState,
  found: PodNetns | undefined,
  { addresses }: VmAddress,
  call: Call,
): Promise<object | undefined> {
  return found && (await podNetwork?.plan({ sandboxId, netnsPath }, found, addresses.slice(0, 1), call));
}

async function attach(
  { podNetwork, log }: StockDeps,
  state: StockState,
  found: PodNetns | undefined,
  { addresses }: VmAddress,
  call: Call,
): Promise<object | undefined> {
  const { netnsPath, sandboxId, vnis, guest, dedicated } = state;
  if (podNetwork === undefined || netnsPath === undefined || found === undefined) return undefined;
  const target = { sandboxId, netnsPath, ...(vnis === undefined ? {} : { vnis }) };
  const peer = dedicated ? addresses[1] : addresses[0];
  if (peer === undefined)
    throw new Fault(
      "failed_precondition",
      `the pod VM has ${addresses.length} addresses, the tunnel needs its second one`,
    );
  const carried = guest === "stock" ? onlyStockInterface(found) : found;
  const plan = await podNetwork.attach(target, carried, [peer], call);
  if (plan === undefined)
    log.warn({ sandbox: sandboxId, addresses }, "the pod has no network: its VM is one that no tunnel reaches");
  return plan;
}

/** The stock forwarder makes one interface, the default route's. */
function onlyStockInterface(found: PodNetns): PodNetns {
  const device = found.routes.find((r) => r.destination === "0.0.0.0/0")?.device;
  return {
    interfaces: found.interfaces.filter((i) => i.name === device),
    routes: found.routes.filter((r) => r.device === device),
    neighbours: found.neighbours.filter((n) => n.device === device),
  };
}

/** Says in which stage something failed. */
async function stage<T>(what: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    const fault = Fault.from(cause);
    throw new Fault(fault.code, `cannot ${what}`, fault.context, { cause: fault, retryable: fault.retryable });
  }
}

import { type Call, withDeadline } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import type { Logger } from "../../../base/log.ts";
import { KeyedMutex } from "../../../base/mutex.ts";
import {
  familyOf,
  isWireguardKey,
  newWireguardKeys,
  type PodNetns,
  type PodNetwork,
  type PodNetworkPlan,
  type PodNetworkTarget,
  parsePlan,
  publicKeyOf,
  type TunnelReservation,
} from "../../../podnetwork/index.ts";
import type { NetworkCommands } from "../network-commands.ts";
import { WIREGUARD_LINK } from "../read-netns.ts";
import { fitted, VXLAN_OVERHEAD, WIREGUARD_OVERHEAD } from "../tunnel-mtu.ts";
import type { VxlanPodNetwork } from "../vxlan-pod-network.ts";
import type { LinkPlace, WireguardBackend } from "./backend.ts";
import { KernelBackend } from "./kernel-backend.ts";
import { probeWireguard, type WireguardKind } from "./probe.ts";
import { type TunnelRecord, TunnelRecords } from "./tunnel-records.ts";
import { UserspaceBackend } from "./userspace-backend.ts";

export interface WireguardPodNetworkDeps {
  /** Reads namespaces and this host's network, makes the inner tunnels; what it attached by itself is its own. */
  readonly vxlan: VxlanPodNetwork;
  /** Whether pods that are attached from now on get WireGuard; those that have it are taken down in any case. */
  readonly wanted: boolean;
  readonly commands: NetworkCommands;
  readonly hostNetns?: string | undefined;
  /** UDP, where guests listen. */
  readonly port: number;
  /** Where records are kept. */
  readonly dir: string;
  readonly log: Logger;
}

/** VXLAN's ends inside of the link: addresses that no network routes. Source: RFC 7335 */
const INSIDE = { worker: "192.0.0.2", guest: "192.0.0.3", prefixLength: 31, port: 4789 } as const;
/** Keeps the way back to this host open through firewalls. Source: WireGuard's own advice for such. */
const KEEP_ALIVE_SECONDS = 25;
/** Between looks whether the processes of links live, and how long making one anew may take, ms. */
const LOOK_MS = 5_000;
const REPAIR_MS = 60_000;

/**
 * Carries pods' networks into their VMs by VXLAN inside of WireGuard: one link for each pod, with keys that are made for it
 * on both sides. On this host the link is in the pod's namespace, with its UDP socket in the host's: nothing but the socket
 * is seen there, and the kernel removes both with the namespace.
 */
export class WireguardPodNetwork implements PodNetwork {
  readonly #deps: WireguardPodNetworkDeps;
  readonly #records: TunnelRecords;
  readonly #locks = new KeyedMutex();
  #backend: Promise<WireguardBackend> | undefined;
  /** Links of this daemon's pods that a process carries. */
  readonly #watched = new Set<string>();
  #watch: NodeJS.Timeout | undefined;

  constructor(deps: WireguardPodNetworkDeps) {
    this.#deps = deps;
    this.#records = new TunnelRecords(deps.dir);
  }

  inspect(netnsPath: string, call: Call): Promise<PodNetns | undefined> {
    return this.#deps.vxlan.inspect(netnsPath, call);
  }

  async reserve(
    target: PodNetworkTarget,
    count: number,
    hostInterface: string | undefined,
    call: Call,
  ): Promise<TunnelReservation> {
    if (!this.#deps.wanted) return await this.#deps.vxlan.reserve(target, count, hostInterface, call);
    throw onlyAfterwards();
  }

  async plan(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined> {
    if (!this.#deps.wanted) return await this.#deps.vxlan.plan(target, found, guestAddresses, call);
    throw onlyAfterwards();
  }

  async attach(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined> {
    const { vxlan, wanted, port } = this.#deps;
    if (!wanted) return await vxlan.attach(target, found, guestAddresses, call);
    return await this.#locks.run(target.sandboxId, async () => {
      const remote = guestAddresses[0];
      const underlay = remote === undefined ? undefined : await vxlan.underlay(remote, call);
      if (remote === undefined || underlay === undefined) return undefined;
      if (target.vnis !== undefined) throw onlyAfterwards();
      const backend = await this.#chosen(call);
      const linkMtu = underlay.mtu - WIREGUARD_OVERHEAD[familyOf(remote)] - backend.reserveBytes;
      const carried = fitted(found, linkMtu - VXLAN_OVERHEAD[4], remote);
      const { sandboxId, netnsPath } = target;
      const before = await this.#records.read(sandboxId);
      const privateKey = before?.privateKey ?? newWireguardKeys().privateKey;
      const guest = before?.guestKey === undefined ? {} : { guestKey: before.guestKey };
      const record = {
        version: 1,
        kind: backend.kind,
        netnsPath,
        privateKey,
        remote,
        port,
        linkMtu,
        ...guest,
      } as const;
      // Before anything is made: whoever comes after this process knows what to take down.
      await this.#records.write(sandboxId, record);
      await this.#bringUp(target, record, backend, call);
      // In a namespace of their own they cannot clash with anybody's.
      const vnis = found.interfaces.map((_, index) => index + 1);
      const links = found.interfaces.map(({ name, mtu }, index) => ({ podInterface: name, mtu, vni: index + 1 }));
      const ends = { local: INSIDE.worker, remote: INSIDE.guest, port: INSIDE.port, inPod: true };
      await vxlan.join(netnsPath, links, ends, call);
      this.#look(sandboxId, backend.kind);
      const inner = { port: INSIDE.port, workerAddress: INSIDE.worker, guestAddress: INSIDE.guest, vnis };
      const outer = { listenPort: port, workerKey: publicKeyOf(privateKey), linkMtu };
      const plan = { version: 1, tunnel: { kind: "wireguard", ...inner, ...outer }, ...carried };
      return parsePlan(plan, `plan for ${netnsPath}`);
    });
  }

  async complete(target: PodNetworkTarget, guestKey: string, call: Call): Promise<void> {
    await this.#locks.run(target.sandboxId, async () => {
      const record = await this.#records.read(target.sandboxId);
      if (record === undefined) {
        if (!this.#deps.wanted && guestKey === "") return;
        const message = `sandbox ${target.sandboxId} has no WireGuard tunnel that a guest's key belongs to: it was taken down`;
        throw new Fault("failed_precondition", message);
      }
      if (!isWireguardKey(guestKey)) {
        const message =
          "the pod VM did not answer with a key for its WireGuard tunnel: build its image, and start the relay, from this version";
        throw new Fault("failed_precondition", message);
      }
      const complete = { ...record, guestKey };
      await this.#records.write(target.sandboxId, complete);
      await setPeer(this.#backendOf(record.kind), target, complete, call);
    });
  }

  async detach(target: PodNetworkTarget, call: Call): Promise<void> {
    const { sandboxId } = target;
    await this.#locks.run(sandboxId, async () => {
      this.#watched.delete(sandboxId);
      const record = await this.#records.read(sandboxId);
      if (record === undefined) return;
      await this.#backendOf(record.kind).remove(target, call);
      await this.#records.remove(sandboxId);
    });
    await this.#deps.vxlan.detach(target, call);
  }

  async release(sandboxId: string): Promise<void> {
    await this.#deps.vxlan.release(sandboxId);
  }

  async retain(sandboxIds: readonly string[]): Promise<void> {
    await this.#deps.vxlan.retain(sandboxIds);
    for (const sandboxId of await this.#records.list()) {
      const record = await this.#records.read(sandboxId);
      if (record === undefined) continue;
      if (sandboxIds.includes(sandboxId)) this.#look(sandboxId, record.kind);
      // Its pod's own state file is gone, so nobody else will.
      else await this.detach({ sandboxId, netnsPath: record.netnsPath }, withDeadline(REPAIR_MS));
    }
  }

  async #bringUp(place: LinkPlace, record: TunnelRecord, backend: WireguardBackend, call: Call): Promise<void> {
    await backend.ensure(place, record.privateKey, call);
    const lines = [
      `link set dev ${WIREGUARD_LINK} mtu ${record.linkMtu} addrgenmode none`,
      `address replace ${INSIDE.worker}/${INSIDE.prefixLength} dev ${WIREGUARD_LINK}`,
      `link set dev ${WIREGUARD_LINK} up`,
    ];
    await this.#deps.commands.pod(place.netnsPath, "ip", ["-batch", "-"], call, `${lines.join("\n")}\n`);
    await setPeer(backend, place, record, call);
  }

  #look(sandboxId: string, kind: WireguardKind): void {
    if (kind === "kernel") return; // which carries its links as long as it runs
    this.#watched.add(sandboxId);
    this.#watch ??= setInterval(() => void this.#repair(), LOOK_MS).unref();
  }

  /** Links whose process has died are made anew, with the keys that their guests know. */
  async #repair(): Promise<void> {
    for (const sandboxId of this.#watched) {
      await this.#locks.run(sandboxId, async () => {
        const fields = { sandbox: sandboxId };
        try {
          const record = this.#watched.has(sandboxId) ? await this.#records.read(sandboxId) : undefined;
          if (record === undefined) {
            this.#watched.delete(sandboxId);
            return;
          }
          const place = { sandboxId, netnsPath: record.netnsPath };
          const backend = this.#backendOf(record.kind);
          if (await backend.isAlive(place)) return;
          await this.#bringUp(place, record, backend, withDeadline(REPAIR_MS));
          this.#deps.log.warn(fields, "a pod's WireGuard process had ended: it was started again");
        } catch (err) {
          // With the pod's namespace its process goes too, before anybody says so here.
          const level = Fault.from(err).code === "not_found" ? "debug" : "error";
          this.#deps.log[level]({ ...fields, err }, "a pod's WireGuard process has ended and does not start again");
        }
      });
    }
  }

  /** Asked once: a module that is loaded later is found by the next daemon. */
  async #chosen(call: Call): Promise<WireguardBackend> {
    this.#backend ??= probeWireguard(this.#deps.commands, call).then((kind) => this.#backendOf(kind));
    try {
      return await this.#backend;
    } catch (e) {
      this.#backend = undefined;
      throw e;
    }
  }

  #backendOf(kind: WireguardKind): WireguardBackend {
    const { commands, hostNetns } = this.#deps;
    return kind === "kernel" ? new KernelBackend({ commands }) : new UserspaceBackend({ commands, hostNetns });
  }
}

async function setPeer(
  backend: WireguardBackend,
  place: LinkPlace,
  { guestKey, remote, port }: TunnelRecord,
  call: Call,
): Promise<void> {
  if (guestKey === undefined) return; // its answer brings it
  const endpoint = { address: remote, port };
  const keepAliveSeconds = KEEP_ALIVE_SECONDS;
  await backend.setPeer(place, { publicKey: guestKey, endpoint, allowedAddress: INSIDE.guest, keepAliveSeconds }, call);
}

/** Keys are exchanged with a guest that runs: one that is told its network in its user-data cannot answer. */
function onlyAfterwards(): Fault {
  const message =
    'the stock image\'s forwarder knows no WireGuard, only VXLAN: set podNetwork.tunnel to "vxlan", or use the reference image (stock.guest)';
  return new Fault("failed_precondition", message);
}

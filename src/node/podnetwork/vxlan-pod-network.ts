import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { KeyedMutex } from "../../base/mutex.ts";
import {
  familyOf,
  type PodNetns,
  type PodNetwork,
  type PodNetworkPlan,
  type PodNetworkTarget,
  parsePlan,
  type TunnelReservation,
} from "../../podnetwork/index.ts";
import { ConntrackBypass } from "./conntrack-bypass.ts";
import type { NetlinkNetwork } from "./netlink/index.ts";
import type { NetworkCommands } from "./network-commands.ts";
import { type IpLink, type IpNeighbour, type IpRoute, readNetns } from "./read-netns.ts";
import { fitted, VXLAN_OVERHEAD } from "./tunnel-mtu.ts";
import type { VniAllocator } from "./vni-allocator.ts";
import { areFree, ensureLinks, removeLinks, type TunnelEnds, type TunnelLink, VniInUse } from "./vxlan-links.ts";
import { type HostNetwork, workerAddress } from "./worker-address.ts";

export interface VxlanPodNetworkDeps {
  readonly commands: NetworkCommands;
  /** The fast way; absent: everything is done with `ip` and `tc`. */
  readonly netlink?: NetlinkNetwork | undefined;
  readonly vnis: VniAllocator;
  /** UDP, on both ends. */
  readonly port: number;
  /** Whether connection tracking shall not see the tunnels. */
  readonly bypassConntrack: boolean;
  readonly log: Logger;
}

/** When connection tracking is told, and how long that may take, ms. */
const BYPASS_AFTER_MS = 1000;
const BYPASS_MS = 60_000;
/** Several daemons on one host (in tests) count from the same number. */
const VNI_ATTEMPTS = 1024;

/** Carries pods' networks into their VMs by VXLAN, one device for each interface, joined by tc. */
export class VxlanPodNetwork implements PodNetwork {
  readonly #deps: VxlanPodNetworkDeps;
  readonly #bypass: ConntrackBypass;
  /** One change at a time for each sandbox: a stop may come while it is being attached. */
  readonly #locks = new KeyedMutex();

  /** Rules that are about to be made. */
  readonly #bypassing = new Map<string, NodeJS.Timeout>();

  constructor(deps: VxlanPodNetworkDeps) {
    this.#deps = deps;
    this.#bypass = new ConntrackBypass(deps);
  }

  async inspect(netnsPath: string, call: Call): Promise<PodNetns | undefined> {
    const { commands, netlink } = this.#deps;
    const ask = <T>(args: readonly string[]): Promise<readonly T[]> =>
      commands.podJson<T>(netnsPath, "ip", ["-json", "-d", ...args], call);
    try {
      const read = await netlink?.inspect(await commands.reachable(netnsPath));
      if (read !== undefined) return readNetns(read, `network namespace ${netnsPath}`);
      const [links, routes4, routes6, neighbours] = await Promise.all([
        ask<IpLink>(["address", "show"]),
        ask<IpRoute>(["-N", "-4", "route", "show", "table", "main"]),
        ask<IpRoute>(["-N", "-6", "route", "show", "table", "main"]),
        ask<IpNeighbour>(["neighbour", "show", "nud", "permanent"]),
      ]);
      return readNetns({ links, routes4, routes6, neighbours }, `network namespace ${netnsPath}`);
    } catch (thrown) {
      const cause = Fault.from(thrown);
      if (cause.code !== "not_found") throw cause;
      const message = `network namespace ${netnsPath} is not there: the CNI should have made it before the pod`;
      throw new Fault("failed_precondition", message, {}, { cause });
    }
  }

  async reserve(
    target: PodNetworkTarget,
    count: number,
    hostInterface: string | undefined,
    call: Call,
  ): Promise<TunnelReservation> {
    const { vnis, port } = this.#deps;
    const { address, dedicated } = await workerAddress(await this.#host(call), hostInterface);
    let given = await vnis.take(target.sandboxId, count);
    // The guest cannot be told others later: what another program of this host uses is passed over now.
    for (let attempt = 1; !(await this.#areFree(target.netnsPath, given.vnis, call)); attempt++) {
      if (attempt >= VNI_ATTEMPTS) throw toldAlready(given.vnis);
      given = await vnis.replace(target.sandboxId);
    }
    return { ...given, port, workerAddress: address, dedicated };
  }

  async plan(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined> {
    const remote = guestAddresses[0];
    const underlay = remote === undefined ? undefined : await this.underlay(remote, call);
    if (remote === undefined || underlay === undefined) return undefined;
    const { vnis, written } = await this.#deps.vnis.take(target.sandboxId, found.interfaces.length);
    await written;
    return planOf({ target, found, vnis, remote, underlay, port: this.#deps.port });
  }

  async attach(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined> {
    return await this.#locks.run(target.sandboxId, async () => {
      const { port, vnis } = this.#deps;
      const remote = guestAddresses[0];
      const underlay = remote === undefined ? undefined : await this.underlay(remote, call);
      if (remote === undefined || underlay === undefined) return undefined;
      const ends = { local: underlay.local, remote, port };
      this.#keepFromConntrack(target.sandboxId, remote);
      let given = await vnis.take(target.sandboxId, found.interfaces.length);
      for (let attempt = 1; ; attempt++) {
        try {
          const links = found.interfaces.map(
            ({ name, mtu }, index): TunnelLink => ({ podInterface: name, mtu, vni: given.vnis[index] ?? 0 }),
          );
          await this.join(target.netnsPath, links, ends, call);
          break;
        } catch (e) {
          if (!(e instanceof VniInUse) || attempt >= VNI_ATTEMPTS) throw e;
          if (target.vnis !== undefined) throw toldAlready(target.vnis);
          given = await vnis.replace(target.sandboxId);
        }
      }
      await given.written; // before the guest is told them
      return planOf({ target, found, vnis: given.vnis, remote, underlay, port });
    });
  }

  async complete(): Promise<void> {
    // VXLAN has no keys: the tunnel is whole since the attach.
  }

  async detach(target: PodNetworkTarget, call: Call): Promise<void> {
    await this.#locks.run(target.sandboxId, async () => {
      const { commands, bypassConntrack } = this.#deps;
      try {
        await removeLinks(commands, target.netnsPath, call);
      } catch (e) {
        if (!(e instanceof Fault) || e.code !== "not_found") throw e; // else the links went with the namespace
      }
      clearTimeout(this.#bypassing.get(target.sandboxId));
      this.#bypassing.delete(target.sandboxId);
      if (bypassConntrack) await this.#bypass.remove(target.sandboxId, call);
    });
  }

  async release(sandboxId: string): Promise<void> {
    await this.#deps.vnis.release(sandboxId);
  }

  async retain(sandboxIds: readonly string[]): Promise<void> {
    await this.#deps.vnis.retain(sandboxIds);
  }

  /** Makes devices and joins them to the pod's interfaces. Repeatable. @throws VniInUse; Fault with the remedy */
  async join(netnsPath: string, links: readonly TunnelLink[], ends: TunnelEnds, call: Call): Promise<void> {
    const { commands, netlink } = this.#deps;
    if ((await netlink?.attach(await commands.reachable(netnsPath), links, ends)) === undefined)
      await ensureLinks(commands, netnsPath, links, ends, call);
  }

  /** Numbers that are free stay taken where the fast way works: the devices wait for their peer. */
  async #areFree(netnsPath: string, vnis: readonly number[], call: Call): Promise<boolean> {
    const { commands, netlink, port } = this.#deps;
    try {
      if ((await netlink?.reserve(await commands.reachable(netnsPath), vnis, port)) !== undefined) return true;
    } catch (e) {
      if (e instanceof VniInUse) return false;
      throw e;
    }
    return areFree(commands, netnsPath, vnis, port, call);
  }

  async #host(call: Call): Promise<HostNetwork> {
    const { commands, netlink } = this.#deps;
    const known = await netlink?.hostDefaults();
    if (known !== undefined)
      return {
        defaultRoutes: async () => known.routes,
        link: async (device) => {
          const link = known.links.find((l) => l.ifname === device);
          if (link === undefined) throw new Fault("not_found", `there is no interface ${device}`);
          return link;
        },
      };
    return {
      defaultRoutes: () => commands.hostJson<IpRoute>("ip", ["-json", "-4", "route", "show", "default"], call),
      link: async (device) =>
        (await commands.hostJson<IpLink>("ip", ["-json", "-4", "address", "show", "dev", device], call))[0],
    };
  }

  /**
   * A while behind the attach, which does not need it: it is several programs, each of which holds this process up, and
   * packets that come before it are only counted.
   */
  #keepFromConntrack(sandboxId: string, remote: string): void {
    const { bypassConntrack, port, log } = this.#deps;
    if (!bypassConntrack) return;
    clearTimeout(this.#bypassing.get(sandboxId));
    const ensure = async (): Promise<void> => {
      this.#bypassing.delete(sandboxId);
      try {
        await this.#bypass.ensure(sandboxId, remote, port, withDeadline(BYPASS_MS));
      } catch (err) {
        const message = "connection tracking sees a pod's tunnel: iptables did not take its rules";
        log.warn({ err, sandbox: sandboxId, remote }, message);
      }
    };
    this.#bypassing.set(sandboxId, setTimeout(() => void ensure(), BYPASS_AFTER_MS).unref());
  }

  /** How this host reaches the VM; undefined when packets would not leave it (user-mode network: loopback). */
  async underlay(remote: string, call: Call): Promise<Underlay | undefined> {
    const { commands, netlink } = this.#deps;
    const path = await netlink?.path(remote);
    if (path?.local === true) return undefined;
    if (path !== undefined && path.source !== "") return { local: path.source, mtu: path.mtu };
    interface Found extends IpRoute {
      readonly type?: string;
    }
    const [route] = await commands.hostJson<Found>("ip", ["-json", "route", "get", remote], call);
    if (route?.dev === undefined || route.prefsrc === undefined)
      throw new Fault("unavailable", `this host has no route to the pod VM at ${remote}`);
    if (route.type === "local") return undefined;
    const [link] = await commands.hostJson<IpLink>("ip", ["-json", "link", "show", "dev", route.dev], call);
    const limit = route.metrics?.find((m) => m.mtu !== undefined)?.mtu;
    return { local: route.prefsrc, mtu: Math.min(link?.mtu ?? 1500, limit ?? Number.POSITIVE_INFINITY) };
  }
}

export interface Underlay {
  /** This host's address on the way to the VM. */
  readonly local: string;
  readonly mtu: number;
}

function planOf(known: {
  readonly target: PodNetworkTarget;
  readonly found: PodNetns;
  readonly vnis: readonly number[];
  readonly remote: string;
  readonly underlay: Underlay;
  readonly port: number;
}): PodNetworkPlan {
  const { target, found, vnis, remote, underlay, port } = known;
  const plan = {
    version: 1,
    tunnel: { kind: "vxlan", port, workerAddress: underlay.local, vnis },
    ...fitted(found, underlay.mtu - VXLAN_OVERHEAD[familyOf(remote)], remote),
  };
  return parsePlan(plan, `plan for ${target.netnsPath}`);
}

function toldAlready(vnis: readonly number[]): Fault {
  const message = `VXLAN network identifier ${vnis.join(", ")}, which the pod VM was told, is used by another program of this host: let podNetwork.firstVni begin elsewhere`;
  return new Fault("failed_precondition", message);
}

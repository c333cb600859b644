import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { Mutex } from "../../base/mutex.ts";
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
import type { NetworkCommands } from "./network-commands.ts";
import { type IpLink, type IpNeighbour, type IpRoute, readNetns } from "./read-netns.ts";
import type { VniAllocator } from "./vni-allocator.ts";
import { areFree, ensureLinks, removeLinks, type TunnelLink, VniInUse } from "./vxlan-links.ts";
import { workerAddress } from "./worker-address.ts";

export interface VxlanPodNetworkDeps {
  readonly commands: NetworkCommands;
  readonly vnis: VniAllocator;
  /** UDP, on both ends. */
  readonly port: number;
  /** Whether connection tracking shall not see the tunnels. */
  readonly bypassConntrack: boolean;
  readonly log: Logger;
}

/** Bytes that a tunnel adds inside of the outer packet: IP, UDP, VXLAN, inner Ethernet. Source: RFC 7348 §4.1 and §5. */
const OVERHEAD = { 4: 50, 6: 70 } as const;
/** Several daemons on one host (in tests) count from the same number. */
const VNI_ATTEMPTS = 1024;
/** Source: RFC 8200 §5, RFC 791. */
const SMALLEST_MTU = { 4: 576, 6: 1280 } as const;

/** Carries pods' networks into their VMs by VXLAN, one device for each interface, joined by tc. */
export class VxlanPodNetwork implements PodNetwork {
  readonly #deps: VxlanPodNetworkDeps;
  readonly #bypass: ConntrackBypass;
  /** One change at a time for each sandbox: a stop may come while it is being attached. */
  readonly #locks = new Map<string, Mutex>();

  constructor(deps: VxlanPodNetworkDeps) {
    this.#deps = deps;
    this.#bypass = new ConntrackBypass(deps);
  }

  async inspect(netnsPath: string, call: Call): Promise<PodNetns | undefined> {
    const { commands } = this.#deps;
    const ask = <T>(args: readonly string[]): Promise<readonly T[]> =>
      commands.podJson<T>(netnsPath, "ip", ["-json", "-d", ...args], call);
    try {
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
    const { commands, vnis, port } = this.#deps;
    const { address, dedicated } = await workerAddress(commands, hostInterface, call);
    let given = await vnis.take(target.sandboxId, count);
    // The guest cannot be told others later: what another program of this host uses is passed over now.
    for (let attempt = 1; !(await areFree(commands, target.netnsPath, given, port, call)); attempt++) {
      if (attempt >= VNI_ATTEMPTS) throw toldAlready(given);
      given = await vnis.replace(target.sandboxId);
    }
    return { vnis: given, port, workerAddress: address, dedicated };
  }

  async attach(
    target: PodNetworkTarget,
    found: PodNetns,
    guestAddresses: readonly string[],
    call: Call,
  ): Promise<PodNetworkPlan | undefined> {
    return await this.#lock(target.sandboxId).run(async () => {
      const { commands, port, vnis, bypassConntrack } = this.#deps;
      const remote = guestAddresses[0];
      const underlay = remote === undefined ? undefined : await this.#underlay(remote, call);
      if (remote === undefined || underlay === undefined) return undefined;
      const ends = { local: underlay.local, remote, port };
      if (bypassConntrack) await this.#bypass.ensure(target.sandboxId, remote, port, call);
      let given = await vnis.take(target.sandboxId, found.interfaces.length);
      for (let attempt = 1; ; attempt++) {
        try {
          const links = found.interfaces.map(
            ({ name, mtu }, index): TunnelLink => ({ podInterface: name, mtu, vni: given[index] ?? 0 }),
          );
          await ensureLinks(commands, target.netnsPath, links, ends, call);
          break;
        } catch (e) {
          if (!(e instanceof VniInUse) || attempt >= VNI_ATTEMPTS) throw e;
          if (target.vnis !== undefined) throw toldAlready(target.vnis);
          given = await vnis.replace(target.sandboxId);
        }
      }
      const room = underlay.mtu - OVERHEAD[familyOf(remote)];
      const plan = {
        version: 1,
        tunnel: { kind: "vxlan", port, workerAddress: underlay.local, vnis: given },
        ...found,
        interfaces: found.interfaces.map((i) => ({ ...i, mtu: Math.min(i.mtu, checkedRoom(room, i, remote)) })),
      };
      return parsePlan(plan, `plan for ${target.netnsPath}`);
    });
  }

  async detach(target: PodNetworkTarget, call: Call): Promise<void> {
    await this.#lock(target.sandboxId).run(async () => {
      const { commands, bypassConntrack } = this.#deps;
      try {
        await removeLinks(commands, target.netnsPath, call);
      } catch (e) {
        if (!(e instanceof Fault) || e.code !== "not_found") throw e; // else the links went with the namespace
      }
      if (bypassConntrack) await this.#bypass.remove(target.sandboxId, call);
    });
    this.#locks.delete(target.sandboxId);
  }

  async release(sandboxId: string): Promise<void> {
    await this.#deps.vnis.release(sandboxId);
  }

  async retain(sandboxIds: readonly string[]): Promise<void> {
    await this.#deps.vnis.retain(sandboxIds);
  }

  /** How this host reaches the VM; undefined when packets would not leave it (user-mode network: loopback). */
  async #underlay(remote: string, call: Call): Promise<{ readonly local: string; readonly mtu: number } | undefined> {
    const { commands } = this.#deps;
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

  #lock(sandboxId: string): Mutex {
    const lock = this.#locks.get(sandboxId) ?? new Mutex();
    this.#locks.set(sandboxId, lock);
    return lock;
  }
}

function toldAlready(vnis: readonly number[]): Fault {
  const message = `VXLAN network identifier ${vnis.join(", ")}, which the pod VM was told, is used by another program of this host: let podNetwork.firstVni begin elsewhere`;
  return new Fault("failed_precondition", message);
}

/** @throws Fault failed_precondition when an address of the interface could not work with so little */
function checkedRoom(room: number, pod: PodNetns["interfaces"][number], remote: string): number {
  const needed = Math.max(...pod.addresses.map((a) => SMALLEST_MTU[familyOf(a.address)]));
  if (room >= needed) return room;
  const message = `the path to the pod VM at ${remote} leaves ${room} bytes in the tunnel, interface ${pod.name} needs ${needed}: raise the MTU of the network between node and VM`;
  throw new Fault("failed_precondition", message);
}

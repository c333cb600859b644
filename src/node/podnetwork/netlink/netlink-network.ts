import { closeSync, openSync } from "node:fs";
import { Fault } from "../../../base/fault.ts";
import type { Logger } from "../../../base/log.ts";
import type { IpLink, IpRoute, NetnsOutput } from "../read-netns.ts";
import { type TunnelEnds, type TunnelLink, VniInUse } from "../vxlan-links.ts";
import { makeTunnels, reserveNumbers } from "./make-tunnel.ts";
import { Netlink, type NetlinkSocket } from "./netlink-socket.ts";
import { type FoundPath, pathTo, readIpv4, readNamespace } from "./read-namespace.ts";

export interface NetlinkNetworkDeps {
  /** Absent: this process's own. */
  readonly hostNetns?: string | undefined;
  readonly log: Logger;
}

interface Sockets {
  readonly host: NetlinkSocket;
  readonly pod: NetlinkSocket;
  readonly netns: number;
}

/**
 * The pod network's usual steps as messages to the kernel: each takes well under a millisecond, where a program that is
 * started for it takes ten. Only the usual: whatever is not as expected is answered with undefined, and the caller then
 * converges with `ip` and `tc`, which also say what is wrong.
 */
export class NetlinkNetwork {
  readonly #deps: NetlinkNetworkDeps;
  #netlink: Promise<Netlink | undefined> | undefined;
  /** Kept: it is asked several times for each pod. */
  #host: NetlinkSocket | undefined;

  constructor(deps: NetlinkNetworkDeps) {
    this.#deps = deps;
  }

  /** @param netns Where the namespace is reached */
  inspect(netns: string): Promise<NetnsOutput | undefined> {
    return this.#with(netns, ({ pod }) => readNamespace(pod));
  }

  /** Undefined also when there is none. */
  path(remote: string): Promise<FoundPath | undefined> {
    return this.#with(undefined, ({ host }) => pathTo(host, remote));
  }

  async hostDefaults(): Promise<
    { readonly routes: readonly IpRoute[]; readonly links: readonly IpLink[] } | undefined
  > {
    return this.#with(undefined, ({ host }) => {
      const { routes4, links } = readIpv4(host);
      return { routes: routes4.filter((r) => r.dst === "default" && r.dev !== undefined), links };
    });
  }

  /** @returns "made", or undefined. @throws VniInUse */
  reserve(netns: string, vnis: readonly number[], port: number): Promise<"made" | undefined> {
    return this.#with(netns, (sockets) => {
      reserveNumbers(sockets.host, sockets.pod, sockets.netns, vnis, port);
      return "made";
    });
  }

  /** @returns "made", or undefined. @throws VniInUse */
  attach(netns: string, links: readonly TunnelLink[], ends: TunnelEnds): Promise<"made" | undefined> {
    return this.#with(netns, (sockets) => {
      makeTunnels(sockets.host, sockets.pod, sockets.netns, links, ends);
      return "made";
    });
  }

  async #with<T>(netns: string | undefined, work: (sockets: Sockets) => T): Promise<T | undefined> {
    this.#netlink ??= Netlink.load();
    const netlink = await this.#netlink;
    if (netlink === undefined) return undefined;
    try {
      this.#host ??= netlink.open(this.#deps.hostNetns);
      const host = this.#host;
      if (netns === undefined) return work({ host, pod: host, netns: -1 });
      using pod = netlink.open(netns);
      const fd = openSync(netns, "r");
      try {
        return work({ host, pod, netns: fd });
      } finally {
        closeSync(fd);
      }
    } catch (e) {
      if (e instanceof VniInUse) throw e;
      // Whatever was wrong, nothing of it shall be read as the answer to the next question.
      this.#host?.[Symbol.dispose]();
      this.#host = undefined;
      this.#deps.log.debug({ err: Fault.from(e), netns }, "the pod network goes on with ip and tc");
      return undefined;
    }
  }
}

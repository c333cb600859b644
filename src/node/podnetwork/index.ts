import { join } from "node:path";
import type { Logger } from "../../base/log.ts";
import type { PodNetwork } from "../../podnetwork/index.ts";
import type { PodNetworkConfig } from "./config.ts";
import { NetlinkNetwork } from "./netlink/index.ts";
import { NetworkCommands, type NetworkCommandsOptions } from "./network-commands.ts";
import { VniAllocator } from "./vni-allocator.ts";
import { VxlanPodNetwork } from "./vxlan-pod-network.ts";
import { WireguardPodNetwork } from "./wireguard/index.ts";

export { PodNetworkConfig } from "./config.ts";
export { verifyPodNetwork } from "./verify.ts";

export interface PodNetworkOptions extends NetworkCommandsOptions {
  readonly config: PodNetworkConfig;
  /** Which numbers are taken is kept here. */
  readonly stateDir: string;
  readonly log: Logger;
  /** false: `ip` and `tc` only, as where koffi is not installed. */
  readonly netlink?: boolean;
}

/** The node's pod network as it is configured; undefined when pods shall have none. */
export function openPodNetwork(options: PodNetworkOptions): PodNetwork | undefined {
  const { config, stateDir, log } = options;
  if (config.tunnel === "none") return undefined;
  const { tunnel, port, firstVni, bypassConntrack } = config;
  const { hostNetns } = options;
  const commands = new NetworkCommands(options);
  const vnis = new VniAllocator({ path: join(stateDir, "vnis.json"), first: firstVni });
  const netlink = options.netlink === false ? undefined : new NetlinkNetwork({ hostNetns, log });
  const vxlan = new VxlanPodNetwork({ commands, netlink, vnis, port, bypassConntrack, log });
  const dir = join(stateDir, "wireguard");
  return new WireguardPodNetwork({ vxlan, wanted: tunnel === "wireguard", commands, hostNetns, port, dir, log });
}

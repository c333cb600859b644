import type { Children } from "../system/children.ts";
import { createNamespace } from "../system/namespaces.ts";
import { GuestNetwork } from "./guest-network.ts";
import { runIp } from "./run-ip.ts";
import { setWireguardLink } from "./wireguard-link.ts";

/** What decrypts a pod's packets is in here, out of reach of its containers and of the network around the VM. */
const TUNNEL_NAMESPACE = "/run/netns/tunnel";

/** The pod network of this machine. @param dir Where batches are written */
export function openGuestNetwork(deps: {
  readonly children: Children;
  readonly podNetns: string;
  readonly dir: string;
}): GuestNetwork {
  const namespaces = { pod: deps.podNetns, tunnel: TUNNEL_NAMESPACE };
  let made = false;
  return new GuestNetwork({
    namespaces,
    run: runIp({ ...deps, namespaces }),
    makeTunnelNamespace: () => {
      if (!made) createNamespace("net", TUNNEL_NAMESPACE);
      made = true;
    },
    setLink: (tunnel, privateKey) => setWireguardLink(TUNNEL_NAMESPACE, tunnel, privateKey),
  });
}

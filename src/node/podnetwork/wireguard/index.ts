export { probeWireguard, type WireguardKind } from "./probe.ts";
export { askUapi } from "./uapi.ts";
export { hostName } from "./userspace-backend.ts";
export { WireguardPodNetwork } from "./wireguard-pod-network.ts";

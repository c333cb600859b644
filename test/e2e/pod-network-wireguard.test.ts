import { describePodNetwork } from "./network/describe-pod-network.ts";
import { WIREGUARD } from "./network/tunnel-kinds.ts";

describePodNetwork(WIREGUARD);

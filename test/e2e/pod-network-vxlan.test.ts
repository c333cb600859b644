import { describePodNetwork } from "./network/describe-pod-network.ts";
import { VXLAN } from "./network/tunnel-kinds.ts";

describePodNetwork(VXLAN);

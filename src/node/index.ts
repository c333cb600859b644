export { loadNodeConfig, NODE_CONFIG_PATH, NodeConfig } from "./config.ts";
export { CONTROL_SOCKET } from "./control.ts";
export { type NodeDaemon, type NodeDaemonDeps, startNodeDaemon } from "./daemon.ts";
export { doorOf, doorSocket } from "./doors.ts";
export { openHypervisors } from "./hypervisors.ts";
export { ensureLock, type LockOptions } from "./lock.ts";
export { nodeId } from "./node-id.ts";
export { openPodNetwork, verifyPodNetwork } from "./podnetwork/index.ts";

export { DaemonKeeper, type DaemonKeeperDeps } from "./daemon-keeper.ts";
export { type DirectVolume, directVolumes } from "./direct-volumes.ts";
export { InProcessRelay, type RelayOptions } from "./in-process-relay.ts";
export { KeptAnswers } from "./kept-answers.ts";
export * from "./relay.ts";
export { RelayClient } from "./relay-client.ts";
export { RelayServer, type RelayServerDeps } from "./relay-server.ts";
export { type RelaySettings, settingsFile } from "./settings.ts";
export { UnixListener } from "./unix-listener.ts";

export { InProcessRelay, type RelayOptions } from "./in-process-relay.ts";
export * from "./relay.ts";
export { UnixListener } from "./unix-listener.ts";

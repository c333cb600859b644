export {
  type ClientMethod,
  type ClientTarget,
  createClient,
  type ServerTrust,
  type ServiceClient,
  type TlsIdentity,
} from "./client.ts";
export {
  type MethodShape,
  type Partially,
  type Request,
  type Response,
  type ServiceShape,
  toServiceDefinition,
} from "./definition.ts";
export { faultToStatus, statusToFault } from "./fault-status.ts";
export { createLocalClient } from "./local-client.ts";
export { type Handler, type Handlers, implement, type Peer } from "./server.ts";

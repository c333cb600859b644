export type { HeldLease, NewOperation, OperationRecord, OperationState, Settlement } from "./operation-record.ts";
export type {
  AcceptedInstance,
  CreateIntent,
  Phase,
  RecordedFault,
  SandboxChange,
  SandboxRecord,
  VmSize,
} from "./sandbox-record.ts";
export { SqliteStore } from "./sqlite-store.ts";
export type {
  AdaptorStore,
  ClaimRequest,
  Epoch,
  NodeStore,
  OperationFilter,
  OperationStore,
  SandboxFilter,
  SandboxStore,
} from "./store.ts";
export { checkStoreConfig, StoreConfig } from "./store-config.ts";

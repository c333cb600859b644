export type { FactStore } from "./fact-store.ts";
export type { HeldLease, NewOperation, OperationRecord, OperationState, Settlement } from "./operation-record.ts";
export { ENDING_PHASES, LIVE_PHASES, mayFollow, PHASES, TRANSITIONS } from "./phase-table.ts";
export type {
  AcceptedInstance,
  CreateIntent,
  Phase,
  RecordedFault,
  ReportMark,
  SandboxChange,
  SandboxRecord,
  StockRecord,
  VmSize,
} from "./sandbox-record.ts";
export { SqliteStore } from "./sqlite-store.ts";
export type {
  AdaptorStore,
  ClaimRequest,
  Epoch,
  OperationFilter,
  OperationStore,
  Position,
  SandboxFilter,
  SandboxStore,
} from "./store.ts";
export { checkStoreConfig, StoreConfig } from "./store-config.ts";

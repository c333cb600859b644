export type {
  CloudAccount,
  FaultKind,
  RateLimit,
  RequestAnswer,
  RequestCost,
  RequestFamily,
  RequestGate,
  RequestPass,
  Shortage,
} from "./account.ts";
export type { Assignment, BatchCreation, InstanceBatch, InstanceClass, Place } from "./batch.ts";
export type { Instance, InstanceSpec, OwnerTags } from "./instance.ts";
export type { Finding, Provider, ProviderDeps, ProviderPlugin } from "./provider.ts";

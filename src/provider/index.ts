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
export { Cached } from "./cached.ts";
export type { Instance, InstanceSpec, OwnerTags } from "./instance.ts";
export { NETWORK_ERRORS } from "./network-errors.ts";
export type { Finding, Provider, ProviderPlugin } from "./provider.ts";
export type { ProviderDeps } from "./provider-deps.ts";
export type {
  DiskFormat,
  ImagePublisher,
  ImageToPublish,
  PublishedImage,
  PublisherPlugin,
  PublishProgress,
} from "./publish.ts";
export { bySize, isAtLeast } from "./vm-size.ts";
export type { VolumeAttachment } from "./volumes.ts";

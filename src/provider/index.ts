export type { Instance, InstanceSpec, OwnerTags } from "./instance.ts";
export type { Finding, Provider, ProviderDeps, ProviderPlugin } from "./provider.ts";

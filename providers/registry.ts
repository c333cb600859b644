import { Fault } from "../src/base/fault.ts";
import type { ProviderPlugin } from "../src/provider/index.ts";

/** Every provider there is. Loaded when chosen: none costs anything before. */
const PROVIDERS: Readonly<Record<string, () => Promise<ProviderPlugin>>> = {
  local: async () => (await import("./local/index.ts")).localProvider,
  aws: async () => (await import("./aws/index.ts")).awsProvider,
  azure: async () => (await import("./azure/index.ts")).azureProvider,
};

export const providerNames: readonly string[] = Object.keys(PROVIDERS);

/** @throws Fault invalid_argument naming the providers there are */
export async function loadProvider(name: string): Promise<ProviderPlugin> {
  const load = Object.hasOwn(PROVIDERS, name) ? PROVIDERS[name] : undefined;
  if (load === undefined) {
    throw new Fault("invalid_argument", `there is no provider "${name}": ${providerNames.join(", ")} are`, {
      provider: name,
    });
  }
  return load();
}

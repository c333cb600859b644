import type { Static } from "typebox";
import type { ProviderPlugin } from "../../src/provider/index.ts";
import { LocalConfig } from "./config.ts";
import { LocalProvider } from "./local-provider.ts";

/** Pod VMs on the adaptor's own host, with QEMU. */
export const localProvider: ProviderPlugin<typeof LocalConfig> = {
  name: "local",
  configSchema: LocalConfig,
  permissions: [],
  create: async (config: Static<typeof LocalConfig>, deps) => new LocalProvider(config, deps),
};

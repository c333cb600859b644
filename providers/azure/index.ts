import type { Static } from "typebox";
import { realClock } from "../../src/base/clock.ts";
import type { Provider, ProviderDeps, ProviderPlugin } from "../../src/provider/index.ts";
import { checkConfig } from "./check-config.ts";
import { AzureConfig } from "./config.ts";
import { PERMISSIONS } from "./permissions.ts";
import { azurePublisher } from "./publish/index.ts";

/** Pod VMs as Azure VMs. */
export const azureProvider: ProviderPlugin<typeof AzureConfig> = {
  name: "azure",
  configSchema: AzureConfig,
  permissions: PERMISSIONS,
  publisher: azurePublisher,
  create: openAzure,
};

async function openAzure(config: Static<typeof AzureConfig>, deps: ProviderDeps): Promise<Provider> {
  checkConfig(config);
  const [{ openSdk }, { ArmApi }, { ArmRequests }, { Headroom }, { AzureProvider }] = await Promise.all([
    import("./azure-sdk.ts"),
    import("./arm-api.ts"),
    import("./arm-requests.ts"),
    import("./headroom.ts"),
    import("./azure-provider.ts"),
  ]);
  const sdk = await openSdk(config);
  const requests = new ArmRequests({ config, clock: deps.clock ?? realClock, headroom: new Headroom(deps) });
  return new AzureProvider(config, { ...deps, sdk, api: new ArmApi({ sdk, requests, config }) });
}

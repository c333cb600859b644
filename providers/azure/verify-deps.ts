import type { ArmApi } from "./arm-api.ts";
import type { AzureSdk } from "./azure-sdk.ts";
import type { AzureConfig } from "./config.ts";
import type { Launcher } from "./launcher.ts";

export interface VerifyDeps {
  readonly api: ArmApi;
  readonly sdk: AzureSdk;
  readonly config: AzureConfig;
  readonly launcher: Launcher;
}

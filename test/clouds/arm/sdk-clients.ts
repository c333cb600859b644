import { ComputeManagementClient } from "@azure/arm-compute";
import { NetworkManagementClient } from "@azure/arm-network";
import { ClientSecretCredential } from "@azure/identity";
import { installAzureSdk } from "./azure-sdk.ts";
import { trustInThisProcess } from "./certificates.ts";
import { ManualClock } from "./clock.ts";
import { ArmEndpoint } from "./endpoint.ts";

/** An endpoint with the SDK's own clients at it, which repeat nothing and wait for nothing. */
export interface SdkClients {
  readonly endpoint: ArmEndpoint;
  readonly clock: ManualClock;
  readonly compute: ComputeManagementClient;
  readonly network: NetworkManagementClient;
  /** Whether requests are held against the published models. */
  readonly modelled: boolean;
}

export async function openSdkClients(): Promise<SdkClients> {
  const sdk = await installAzureSdk();
  const clock = new ManualClock();
  const endpoint = await ArmEndpoint.start({ clock, ...("missing" in sdk ? {} : { model: sdk.model }) });
  trustInThisProcess(endpoint.certificates.ca);
  endpoint.cloud.knobs.retryAfterS = 0;
  const { application, id } = endpoint.tenant;
  const authority = { authorityHost: endpoint.url, disableInstanceDiscovery: true };
  const credential = new ClientSecretCredential(id, application.clientId, application.secret, authority);
  const options = { endpoint: endpoint.url, retryOptions: { maxRetries: 0 } };
  return {
    ...{ endpoint, clock, modelled: !("missing" in sdk) },
    compute: new ComputeManagementClient(credential, endpoint.cloud.id, options),
    network: new NetworkManagementClient(credential, endpoint.cloud.id, options),
  };
}

/** What a refused request says: status and code. */
export async function refusal(sent: PromiseLike<unknown>): Promise<string> {
  try {
    await sent;
  } catch (e) {
    const { code, statusCode } = e as { code?: string; statusCode?: number };
    return `${statusCode} ${code}`;
  }
  return "accepted";
}

import { readFile } from "node:fs/promises";
import type { ComputeManagementClient } from "@azure/arm-compute";
import type { NetworkManagementClient } from "@azure/arm-network";
import type { TokenCredential } from "@azure/identity";
import { Fault } from "../../src/base/fault.ts";
import type { AzureConfig } from "./config.ts";

/** The SDK's clients, made once. */
export interface AzureSdk {
  readonly compute: ComputeManagementClient;
  readonly network: NetworkManagementClient;
  readonly credential: TokenCredential;
  /** For tokens. */
  readonly scope: string;
  /** Of Azure Resource Manager. */
  readonly endpoint: string;
  /** In place of the well-known ones. */
  readonly ca: string | undefined;
}

interface Cloud {
  readonly endpoint: string;
  readonly authority: string;
}

const CLOUDS: Readonly<Record<AzureConfig["cloud"], Cloud>> = {
  public: { endpoint: "https://management.azure.com", authority: "https://login.microsoftonline.com" },
  "us-government": { endpoint: "https://management.usgovcloudapi.net", authority: "https://login.microsoftonline.us" },
  china: { endpoint: "https://management.chinacloudapi.cn", authority: "https://login.chinacloudapi.cn" },
};

/** What a connection is made of; images are published with the same. */
export type SdkConfig = Pick<
  AzureConfig,
  | "subscriptionId"
  | "credential"
  | "managedIdentityClientId"
  | "cloud"
  | "endpoint"
  | "authorityHost"
  | "caFile"
  | "requestTimeoutMs"
>;

/** The SDK is loaded here and nowhere else: another provider never pays for it. */
export async function openSdk(config: SdkConfig): Promise<AzureSdk> {
  const [compute, network, identity, ca] = await Promise.all([
    import("@azure/arm-compute"),
    import("@azure/arm-network"),
    import("@azure/identity"),
    readCa(config.caFile),
  ]);
  const cloud = CLOUDS[config.cloud];
  const endpoint = config.endpoint ?? cloud.endpoint;
  const scope = `${cloud.endpoint}/.default`;
  const tls = ca === undefined ? {} : { tlsOptions: { ca } };
  const credential = makeCredential(identity, config, {
    ...{ authorityHost: config.authorityHost ?? cloud.authority, ...tls },
    // Another authority than Microsoft's is not among those that it vouches for.
    disableInstanceDiscovery: config.authorityHost !== undefined,
  });
  const options = {
    ...{ endpoint, ...tls, credentials: { scopes: [scope] } },
    // Repeated by ArmRequests and not by the SDK: the adaptor's limits would know nothing of it.
    retryOptions: { maxRetries: 0 },
    additionalPolicies: [timeoutPolicy(config.requestTimeoutMs)],
  };
  return {
    ...{ credential, scope, endpoint, ca },
    compute: new compute.ComputeManagementClient(credential, config.subscriptionId, options),
    network: new network.NetworkManagementClient(credential, config.subscriptionId, options),
  };
}

type Identity = typeof import("@azure/identity");
interface CredentialOptions {
  readonly authorityHost: string;
  readonly disableInstanceDiscovery: boolean;
  readonly tlsOptions?: { readonly ca: string };
}

/** Client secrets and certificates, federated tokens (AKS), managed identities: where there are several, in this order. */
function makeCredential(
  { EnvironmentCredential, WorkloadIdentityCredential, ManagedIdentityCredential, ChainedTokenCredential }: Identity,
  config: SdkConfig,
  options: CredentialOptions,
): TokenCredential {
  const { managedIdentityClientId: clientId } = config;
  const sources: Readonly<Record<Exclude<AzureConfig["credential"], "chain">, () => TokenCredential>> = {
    environment: () => new EnvironmentCredential(options),
    "workload-identity": () => new WorkloadIdentityCredential(options),
    "managed-identity": () => new ManagedIdentityCredential(clientId === undefined ? {} : { clientId }),
  };
  if (config.credential !== "chain") return later(sources[config.credential]);
  return new ChainedTokenCredential(...Object.values(sources).map(later));
}

/** Some say in their constructor that they have nothing to work with: in a chain that is for the next one to hear. */
function later(make: () => TokenCredential): TokenCredential {
  let made: TokenCredential | undefined;
  return {
    async getToken(scopes, options) {
      made ??= make();
      return made.getToken(scopes, options);
    },
  };
}

async function readCa(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    const message = `providers.azure.caFile ${path} cannot be read`;
    throw new Fault("invalid_argument", message, { provider: "azure" }, { cause });
  }
}

/** Of every request, those for further pages included, which take no options. */
function timeoutPolicy(timeoutMs: number) {
  return {
    position: "perRetry" as const,
    policy: {
      name: "kata-remote-timeout",
      sendRequest<R extends { timeout: number }, A>(request: R, next: (request: R) => Promise<A>): Promise<A> {
        if (request.timeout === 0) request.timeout = timeoutMs;
        return next(request);
      },
    },
  };
}

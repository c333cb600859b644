import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { Finding } from "../../src/provider/index.ts";
import { faultOf, toFault } from "./faults.ts";
import { failed } from "./finding.ts";
import { httpGet } from "./http-get.ts";
import { GROUP_PERMISSIONS, PUBLIC_IP_PERMISSIONS } from "./permissions.ts";
import type { VerifyDeps } from "./verify-deps.ts";

const API_VERSION = "2022-04-01";
const MAX_BYTES = 4 << 20;
const MAX_PAGES = 20;

/** What a role lets its holder do. Source: REST reference, "Permissions - List For Resource Group". */
interface Grant {
  readonly actions?: readonly string[];
  readonly notActions?: readonly string[];
}

/** Asks Azure what the credentials may do in the resource group. The group itself is found to be there by it. */
export async function verifyPermissions(deps: VerifyDeps, call: Call): Promise<Finding[]> {
  const subject = "permissions";
  const { config } = deps;
  try {
    const grants = await readGrants(deps, call);
    const needed = [...GROUP_PERMISSIONS, ...(config.publicIp ? PUBLIC_IP_PERMISSIONS : [])];
    const lacking = needed.filter((action) => !grants.some((grant) => allows(grant, action)));
    if (lacking.length === 0) {
      return [{ subject, state: "ok", detail: `${needed.length} actions in resource group ${config.resourceGroup}` }];
    }
    const detail = `in resource group ${config.resourceGroup} these lack: ${lacking.join(", ")}`;
    return [
      { subject, state: "error", detail, remedy: "assign the role in providers/azure/README.md to the credentials" },
    ];
  } catch (e) {
    const remedy = `correct providers.azure.resourceGroup, or make it: az group create -n ${config.resourceGroup} -l ${config.location}`;
    return [failed("resource group", e, remedy)];
  }
}

/** A role's notActions take away of its own actions only: another role may give them. */
export function allows({ actions = [], notActions = [] }: Grant, action: string): boolean {
  const matches = (pattern: string): boolean =>
    new RegExp(`^${pattern.replace(/[.+^${}()|[\]\\?]/g, "\\$&").replaceAll("*", ".*")}$`, "i").test(action);
  return actions.some(matches) && !notActions.some(matches);
}

async function readGrants({ sdk, config, api }: VerifyDeps, call: Call): Promise<readonly Grant[]> {
  const group = `/subscriptions/${config.subscriptionId}/resourceGroups/${config.resourceGroup}`;
  const first = `${sdk.endpoint.replace(/\/$/, "")}${group}/providers/Microsoft.Authorization/permissions?api-version=${API_VERSION}`;
  const grants: Grant[] = [];
  let next: string | undefined = first;
  for (let page = 0; next !== undefined && page < MAX_PAGES; page++) {
    const url: string = next;
    const { value: answer } = await api.requests.send(
      "read",
      "list permissions",
      () => readPage(url, sdk, config, call),
      call,
    );
    grants.push(...(answer.value ?? []));
    next = answer.nextLink;
  }
  return grants;
}

async function readPage(
  url: string,
  sdk: VerifyDeps["sdk"],
  config: VerifyDeps["config"],
  call: Call,
): Promise<{ readonly value?: readonly Grant[]; readonly nextLink?: string }> {
  const action = "list permissions";
  const token = await sdk.credential.getToken(sdk.scope, { abortSignal: call.signal });
  const headers = { authorization: `Bearer ${token?.token ?? ""}`, accept: "application/json" };
  const options = { headers, ca: sdk.ca, timeoutMs: config.requestTimeoutMs, maxBytes: MAX_BYTES };
  const { status, body } = await httpGet(url, options, call).catch((e: unknown) => {
    throw toFault(e, action, {});
  });
  const answer = parse(body);
  if (status === 200) return answer;
  const { code = `Status${status}`, message = "" } = answer.error ?? {};
  throw faultOf({ code, message, status }, action, { region: config.location });
}

interface Page {
  readonly value?: readonly Grant[];
  readonly nextLink?: string;
  readonly error?: { readonly code?: string; readonly message?: string };
}

function parse(body: Buffer): Page {
  try {
    return JSON.parse(body.toString()) as Page;
  } catch (cause) {
    throw new Fault("unavailable", "Azure's answer is no JSON", { provider: "azure", kind: "transient" }, { cause });
  }
}

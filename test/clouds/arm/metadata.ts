import type { Json, JsonObject } from "./body.ts";
import type { EntraTenant } from "./entra.ts";
import { answerFabric } from "./fabric.ts";
import { instanceDocument } from "./instance-document.ts";
import type { VirtualMachine } from "./resources.ts";
import type { Subscription } from "./subscription.ts";
import type { WireReply, WireRequest } from "./wire.ts";

/** Source: `/metadata/versions` of the service (part). */
const VERSIONS = [
  ...["2017-04-02", "2017-08-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01", "2019-02-01", "2019-03-11"],
  ...["2019-04-30", "2019-06-01", "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01", "2020-06-01", "2020-07-15"],
  ...["2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01", "2021-05-01", "2021-10-01"],
  ...["2021-11-01", "2021-11-15", "2021-12-13", "2023-07-01", "2023-11-15", "2025-04-07"],
];
const IDENTITY_VERSIONS = ["2018-02-01", "2019-08-01"];
const EVENT_VERSIONS = ["2017-08-01", "2017-11-01", "2019-01-01", "2019-04-01", "2019-08-01", "2020-07-01"];

export interface FabricRequest extends WireRequest {
  /** ARM id of the VM that asks; undefined = the host that the tests run on. */
  readonly vmId: string | undefined;
  /** `168.63.129.16` is the fabric, all others the metadata service. */
  readonly destination?: string;
}

/** What VMs reach at 169.254.169.254 and 168.63.129.16. Source: learn.microsoft.com "Azure Instance Metadata Service". */
export class MetadataService {
  readonly #cloud: Subscription;
  readonly #tenant: EntraTenant;
  /** Paths that were asked for, newest last. */
  readonly requests: { readonly vmId: string | undefined; readonly path: string; readonly status: number }[] = [];
  /** The host has a managed identity. */
  hostIdentity = true;

  constructor(deps: { readonly cloud: Subscription; readonly tenant: EntraTenant }) {
    this.#cloud = deps.cloud;
    this.#tenant = deps.tenant;
  }

  answer(request: FabricRequest): WireReply {
    this.#cloud.settle();
    const { vmId } = request;
    const vm = vmId === undefined ? undefined : this.#cloud.find("Microsoft.Compute/virtualMachines", vmId);
    const reply =
      request.destination === "168.63.129.16" && vm !== undefined ? answerFabric(request, vm) : this.#imds(request, vm);
    this.requests.push({ vmId, path: request.path, status: reply.status });
    return reply;
  }

  #imds(request: FabricRequest, vm: VirtualMachine | undefined): WireReply {
    const url = new URL(request.path, "http://169.254.169.254");
    if (!url.pathname.startsWith("/metadata")) return json(404, { error: "Not found" });
    if (String(request.headers.metadata ?? "").toLowerCase() !== "true") {
      return json(400, { error: "Bad request. Required metadata header not specified" });
    }
    if (request.headers["x-forwarded-for"] !== undefined) {
      return json(400, { error: "Bad request. Request contains X-Forwarded-For header" });
    }
    const path = url.pathname.replace(/\/$/, "").toLowerCase();
    if (path === "/metadata/versions") return json(200, { apiVersions: VERSIONS });
    if (path === "/metadata/identity/oauth2/token") return this.#identity(url, request, vm);
    if (path === "/metadata/scheduledevents") {
      return checkVersion(url, EVENT_VERSIONS) ?? json(200, { DocumentIncarnation: 1, Events: [] });
    }
    if (path !== "/metadata/instance" && !path.startsWith("/metadata/instance/"))
      return json(404, { error: "Not found" });
    if (request.method !== "GET") return json(405, { error: "Method not allowed" });
    const refused = checkVersion(url, VERSIONS);
    if (refused !== undefined) return refused;
    if (vm === undefined) return json(404, { error: "Not found" });
    const version = url.searchParams.get("api-version") ?? "";
    return walk(instanceDocument(this.#cloud, vm, version), url);
  }

  #identity(url: URL, request: FabricRequest, vm: VirtualMachine | undefined): WireReply {
    const refused = checkVersion(url, IDENTITY_VERSIONS);
    if (refused !== undefined) return refused;
    if (request.method !== "GET") return json(405, { error: "method_not_allowed" });
    const resource = url.searchParams.get("resource");
    if (resource === null || resource === "") {
      return json(400, {
        error: "invalid_request",
        error_description: "Required query variable 'resource' is missing",
      });
    }
    const { clientId } = this.#tenant.application;
    const asked = url.searchParams.get("client_id") ?? clientId;
    const identity = (vm?.shown.identity as JsonObject | undefined)?.type;
    const has = vm === undefined ? this.hostIdentity : identity !== undefined && identity !== "None";
    if (!has || asked !== clientId) {
      return json(400, { error: "invalid_request", error_description: "Identity not found" });
    }
    const now = Math.floor(Date.now() / 1000);
    const { lifetimeS } = this.#tenant;
    return json(200, {
      ...{ access_token: this.#tenant.accessToken(resource), client_id: clientId, resource, token_type: "Bearer" },
      ...{ expires_in: String(lifetimeS - 1), ext_expires_in: String(lifetimeS - 1) },
      ...{ expires_on: String(now + lifetimeS), not_before: String(now - 5) },
    });
  }
}

function checkVersion(url: URL, known: readonly string[]): WireReply | undefined {
  const version = url.searchParams.get("api-version");
  if (version === null) {
    const error =
      "Bad request. api-version was not specified in the request. For more information refer to aka.ms/azureimds";
    return json(400, { error, "newest-versions": known.slice(-3).reverse() });
  }
  if (known.includes(version)) return undefined;
  const error = "Bad request. api-version is invalid or was not specified in the request.";
  return json(400, { error, "newest-versions": known.slice(-3).reverse() });
}

/** A part of the document: containers as JSON or as a list of names, leaves as text only. */
function walk(document: JsonObject, url: URL): WireReply {
  let at: Json = document;
  for (const name of url.pathname
    .split("/")
    .slice(3)
    .filter((n) => n !== "")) {
    const inside: Json = Array.isArray(at)
      ? at[Number(name)]
      : (Object.entries((at ?? {}) as JsonObject).find(
          ([key]) => key.toLowerCase() === name.toLowerCase(),
        )?.[1] as Json);
    if (inside === undefined) return json(404, { error: "Not found" });
    at = inside;
  }
  const format = (url.searchParams.get("format") ?? "json").toLowerCase();
  if (typeof at === "object" && at !== null) {
    if (format === "json") return json(200, at);
    const names = Array.isArray(at)
      ? at.map((_, i) => `${i}/`)
      : Object.entries(at).map(([k, v]) => (typeof v === "object" ? `${k}/` : k));
    return text(names.join("\n"));
  }
  if (format !== "text") return json(400, { error: "Bad request. The requested path is a leaf: use format=text" });
  return text(String(at));
}

function text(body: string): WireReply {
  return { status: 200, headers: { "content-type": "text/plain; charset=utf-8" }, body };
}

function json(status: number, body: unknown): WireReply {
  return { status, headers: { "content-type": "application/json; charset=utf-8" }, body: JSON.stringify(body) };
}

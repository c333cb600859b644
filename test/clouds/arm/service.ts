import { randomUUID } from "node:crypto";
import { Dropped, FaultQueue, type InjectedFault } from "../faults.ts";
import { checkApiVersion } from "./api-versions.ts";
import { ArmError, notImplemented, renderError } from "./arm-error.ts";
import { BlobStore } from "./blob-store.ts";
import { Body, type JsonObject, unknownProperty } from "./body.ts";
import { type Clock, realClock } from "./clock.ts";
import { EntraTenant } from "./entra.ts";
import { withFault } from "./faults.ts";
import { MetadataService } from "./metadata.ts";
import type { ArmModel } from "./model.ts";
import { type ArmCall, type ArmReply, dialectOf, type Route, typeOf } from "./route.ts";
import { findRoute } from "./routes.ts";
import { seed } from "./seed.ts";
import { Subscription } from "./subscription.ts";
import { Throttle } from "./throttle.ts";
import { type Claims, checkBearer } from "./tokens.ts";
import type { WireReply, WireRequest } from "./wire.ts";

/** A request that came in, and how it was answered. */
export interface SeenRequest {
  /** Operation of the published specification, e.g. `VirtualMachines_Get`. */
  readonly action: string;
  readonly method: string;
  readonly path: string;
  readonly body: JsonObject | undefined;
  status?: number;
  /** ARM's error code; undefined = it succeeded; "dropped" = no answer was given. */
  outcome?: string;
}

export interface EndpointOptions {
  readonly clock?: Clock;
  /** The published description: every request and reply is then held against it. */
  readonly model?: ArmModel;
  /** First two bytes of the addresses of the network in westeurope; 10.0 unless given. */
  readonly addressPrefix?: string;
  /** Directory for what is uploaded; in memory there would be no room for images. */
  readonly folder: string;
}

/** Azure Resource Manager, Microsoft Entra and Blob storage for one subscription, without what carries them. */
export class ArmService {
  readonly cloud: Subscription;
  readonly tenant: EntraTenant;
  readonly blobs: BlobStore;
  readonly metadata: MetadataService;
  /** Those to Resource Manager, newest last. */
  readonly requests: SeenRequest[] = [];
  /** Replies of this endpoint that the published description does not allow: a test must find none. */
  readonly replyProblems: string[] = [];
  readonly #model: ArmModel | undefined;
  readonly #faults = new FaultQueue();
  readonly #throttle: Throttle;

  constructor(options: EndpointOptions) {
    this.cloud = new Subscription(options.clock ?? realClock, options.addressPrefix);
    this.tenant = new EntraTenant(this.cloud.tenant);
    this.blobs = new BlobStore({ folder: options.folder, cloud: this.cloud });
    this.metadata = new MetadataService({ cloud: this.cloud, tenant: this.tenant });
    this.#model = options.model;
    this.#throttle = new Throttle(this.cloud);
    seed(this.cloud);
  }

  inject(fault: InjectedFault): void {
    this.#faults.add(fault);
  }

  /** Requests of one action, or of all. */
  count(action?: string): number {
    return this.requests.filter((r) => action === undefined || r.action === action).length;
  }

  /** @returns undefined when the connection is to be closed without an answer */
  async answer(request: WireRequest): Promise<WireReply | undefined> {
    const base = `https://${String(request.headers.host ?? "management.azure.com")}`;
    if (request.path.startsWith("/subscriptions")) return this.#answerArm(request, base);
    if (this.blobs.owns(request.path)) return this.blobs.answer(request);
    const reply = this.tenant.answer(request, base);
    if (reply !== undefined) return reply;
    return render(404, renderError(new ArmError(404, "NotFound", `No service is at ${request.path}`)), {});
  }

  async #answerArm(request: WireRequest, base: string): Promise<WireReply | undefined> {
    const url = new URL(request.path, base);
    const path = decodeURI(url.pathname).replace(/\/$/, "");
    const found = findRoute(request.method, path);
    const body = parseBody(request.body);
    const seen: SeenRequest = {
      ...{ action: found?.route.name ?? `${request.method} ${path}`, method: request.method, path: request.path },
      body: typeof body === "string" ? undefined : body,
    };
    this.requests.push(seen);
    const headers: Record<string, string> = {
      "x-ms-request-id": randomUUID(),
      "x-ms-correlation-request-id": randomUUID(),
      "x-ms-routing-request-id": `TEST:${new Date().toISOString()}:${randomUUID()}`,
    };
    try {
      const reply = await withFault(this.#faults.next(seen.action), async () => {
        const caller = checkBearer(text(request.headers.authorization), {
          issuer: this.tenant.issuer,
          tenant: this.tenant.id,
        });
        if (found === undefined) throw notFoundRoute(request.method, path);
        if (typeof body === "string") {
          const message = `The request content was invalid and could not be deserialized: '${body}'.`;
          throw new ArmError(400, "InvalidRequestContent", message);
        }
        Object.assign(headers, this.#throttle.enter(found.route));
        return this.#handle({ ...found, url, path, base, body, caller, request });
      });
      seen.status = reply.status;
      return render(reply.status, reply.body, { ...headers, ...this.#operationHeaders(reply, base), ...reply.headers });
    } catch (e) {
      if (e instanceof Dropped) {
        seen.outcome = "dropped";
        return undefined;
      }
      const error = e instanceof ArmError ? e : new ArmError(500, "InternalServerError", String((e as Error).stack));
      if (!(e instanceof ArmError)) this.replyProblems.push(`${seen.action}: ${error.message}`);
      Object.assign(seen, { outcome: error.code, status: error.status });
      return render(error.status, renderError(error), { ...headers, ...error.headers });
    }
  }

  async #handle(incoming: {
    readonly route: Route;
    readonly params: Readonly<Record<string, string>>;
    readonly url: URL;
    readonly path: string;
    readonly base: string;
    readonly body: JsonObject | undefined;
    readonly caller: Claims;
    readonly request: WireRequest;
  }): Promise<ArmReply> {
    const { route, params, url, path, body } = incoming;
    const { cloud } = this;
    cloud.settle();
    const query = new Map([...url.searchParams].map(([name, value]) => [name.toLowerCase(), value] as const));
    if (params.subscriptionId?.toLowerCase() !== cloud.id) {
      const message = `The subscription '${params.subscriptionId}' could not be found.`;
      throw new ArmError(404, "SubscriptionNotFound", message);
    }
    const apiVersion = query.get("api-version");
    checkApiVersion(typeOf(path), apiVersion);
    this.#authorize(route, path, incoming.caller);
    const group = params.resourceGroupName;
    if (group !== undefined && !route.name.startsWith("ResourceGroups_") && !cloud.groups.has(group.toLowerCase())) {
      throw new ArmError(404, "ResourceGroupNotFound", `Resource group '${group}' could not be found.`);
    }
    this.#model?.checkRequest(route.method, route.path, { query, body });
    const reader = new Body(body, dialectOf(path));
    const checkRead = (): void => {
      const [unread] = reader.unread();
      if (unread === undefined) return;
      throw this.#model === undefined ? unknownProperty(dialectOf(path), unread) : notImplemented(`property ${unread}`);
    };
    const headers = Object.fromEntries(Object.entries(incoming.request.headers).map(([k, v]) => [k, text(v)]));
    const call: ArmCall = {
      ...{ cloud, params, query, headers, body: reader, apiVersion: apiVersion ?? "", base: incoming.base, id: path },
      commit: checkRead,
    };
    const reply = await route.handle(call);
    checkRead();
    const problems = this.#model?.checkReply(route.method, route.path, reply.status, reply.body) ?? [];
    this.replyProblems.push(...problems);
    return reply;
  }

  #authorize({ action }: Route, path: string, caller: Claims): void {
    if (!this.cloud.knobs.denied.has(action)) return;
    const message = `The client '${caller.appid}' with object id '${caller.oid}' does not have authorization to perform action '${action}' over scope '${path}' or the scope is invalid. If access was recently granted, please refresh your credentials.`;
    throw new ArmError(403, "AuthorizationFailed", message);
  }

  /** Where the caller asks for the state of what it began. Source: ARM RPC "async-api-reference". */
  #operationHeaders({ operation, status }: ArmReply, base: string): Record<string, string> {
    if (operation === undefined) return {};
    const { namespace, location, apiVersion } = operation.spec;
    const at = `${base}/subscriptions/${this.cloud.id}/providers/${namespace}/locations/${location}`;
    const compute = namespace === "Microsoft.Compute";
    const version = `api-version=${apiVersion}`;
    const state = compute
      ? `${at}/operations/${operation.id}?p=${this.cloud.id}&${version}`
      : `${at}/operations/${operation.id}?${version}`;
    const result = compute
      ? `${at}/operations/${operation.id}?p=${this.cloud.id}&monitor=true&${version}`
      : `${at}/operationResults/${operation.id}?${version}`;
    return {
      "azure-asyncoperation": state,
      ...(status === 202 && { location: result }),
      "retry-after": String(compute ? this.cloud.knobs.retryAfterS : Math.min(this.cloud.knobs.retryAfterS, 10)),
    };
  }
}

function notFoundRoute(method: string, path: string): ArmError {
  const known = ["Microsoft.Compute", "Microsoft.Network", "Microsoft.Resources", "Microsoft.Authorization"];
  const namespace = /\/providers\/([^/]+)/i.exec(path)?.[1];
  if (namespace !== undefined && !known.some((k) => k.toLowerCase() === namespace.toLowerCase())) {
    const message = `The resource namespace '${namespace}' is invalid.`;
    return new ArmError(404, "InvalidResourceNamespace", message);
  }
  return notImplemented(`${method} ${path}`);
}

/** @returns a text = what is wrong with it */
function parseBody(body: Buffer): JsonObject | undefined | string {
  if (body.length === 0) return undefined;
  try {
    return JSON.parse(body.toString()) as JsonObject;
  } catch (e) {
    return (e as Error).message;
  }
}

function text(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function render(status: number, body: unknown, headers: Readonly<Record<string, string>>): WireReply {
  const content: Readonly<Record<string, string>> =
    body === undefined ? {} : { "content-type": "application/json; charset=utf-8" };
  return { status, headers: { ...content, ...headers }, body: body === undefined ? "" : JSON.stringify(body) };
}

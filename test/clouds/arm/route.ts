import type { Body, Dialect, Json, JsonObject } from "./body.ts";
import type { Operation } from "./operation.ts";
import type { Subscription } from "./subscription.ts";

/** A request that has been let in. */
export interface ArmCall {
  readonly cloud: Subscription;
  /** Names out of the path, by the name in the route's template. */
  readonly params: Readonly<Record<string, string>>;
  /** Names in lower case. */
  readonly query: ReadonlyMap<string, string>;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Body;
  readonly apiVersion: string;
  /** `https://host:port`, as the caller wrote it. */
  readonly base: string;
  /** The path as the caller wrote it: id of the resource, for those that are one. */
  readonly id: string;
  /**
   * Called by everything that changes something, when all of the request has been read and found right.
   * @throws ArmError for parts that nobody has read: nothing is ignored
   */
  commit(): void;
}

export interface ArmReply {
  readonly status: number;
  readonly body?: JsonObject | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** The caller is told where to ask for its state. */
  readonly operation?: Operation | undefined;
}

export interface Route {
  /** Operation id of the published specification. */
  readonly name: string;
  readonly method: "GET" | "PUT" | "PATCH" | "POST" | "DELETE";
  readonly path: string;
  /** What a role must allow. */
  readonly action: string;
  /** Whose throttling policy counts it: `PutVM`. */
  readonly group?: string;
  readonly handle: (call: ArmCall) => ArmReply | Promise<ArmReply>;
}

/** The part of a path up to and with the name of a resource group. */
export const IN_GROUP = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}";
export const IN_SUBSCRIPTION = "/subscriptions/{subscriptionId}";
export const COMPUTE = "providers/Microsoft.Compute";
export const NETWORK = "providers/Microsoft.Network";

export function dialectOf(path: string): Dialect {
  return /\/providers\/Microsoft\.Network(\/|$)/i.test(path) ? "network" : "compute";
}

/** `Microsoft.Compute/virtualMachines` out of a path or template; `Microsoft.Resources/…` where no provider is named. */
export function typeOf(path: string): string {
  const [, namespace, rest] = /\/providers\/([^/]+)\/(.+)$/i.exec(path) ?? [];
  if (namespace === undefined || rest === undefined) return "Microsoft.Resources/resourceGroups";
  const names = rest.split("/").filter((_, i) => i % 2 === 0);
  return `${namespace}/${names.join("/")}`;
}

/**
 * One page of a list. The link of the next is whole, and good for the same list only.
 * @param items in the order in which they are shown
 */
export function page(call: ArmCall, items: readonly JsonObject[]): ArmReply {
  const { maxPage, emptyFirstPage } = call.cloud.knobs;
  const token = call.query.get("$skiptoken") ?? call.query.get("skiptoken");
  const link = (offset: number): string => {
    const query = new URLSearchParams([...call.query].filter(([name]) => !/^\$?skiptoken$/.test(name)));
    query.set("$skiptoken", Buffer.from(`${call.id.toLowerCase()}:${offset}`).toString("base64url"));
    return `${call.base}${call.id}?${query}`;
  };
  if (token === undefined && emptyFirstPage) return { status: 200, body: { value: [], nextLink: link(0) } };
  const start = token === undefined ? 0 : Number(Buffer.from(token, "base64url").toString().split(":").at(-1));
  const end = start + maxPage;
  const value: readonly Json[] = items.slice(start, end);
  return { status: 200, body: end < items.length ? { value, nextLink: link(end) } : { value } };
}

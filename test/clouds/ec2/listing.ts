import { createHash } from "node:crypto";
import type { Ec2Account } from "./account.ts";
import { ApiError, notImplemented } from "./api-error.ts";
import type { Params } from "./query.ts";

/** Values of an item by filter name, without `tag:`. */
export type FilterFields<T> = Readonly<Record<string, (item: T) => readonly string[]>>;

/**
 * Keeps the items that match all filters; `*` and `?` in a value are wildcards.
 * @throws ApiError for a filter that this endpoint does not implement
 */
export function applyFilters<T>(
  items: readonly T[],
  filters: readonly Params[],
  fields: FilterFields<T>,
  tagsOf?: (item: T) => ReadonlyMap<string, string>,
): readonly T[] {
  let kept = items;
  for (const filter of filters) {
    const name = filter.need("Name");
    const wanted = filter.texts("Value");
    if (wanted.length === 0) throw new ApiError("InvalidParameterValue", `The filter '${name}' has no values`);
    if (wanted.length > 200) throw new ApiError("FilterLimitExceeded", `The filter '${name}' has more than 200 values`);
    const values = valuesOf(name, fields, tagsOf);
    const matches = matcher(wanted);
    kept = kept.filter((item) => values(item).some(matches));
  }
  return kept;
}

function valuesOf<T>(
  name: string,
  fields: FilterFields<T>,
  tagsOf?: (item: T) => ReadonlyMap<string, string>,
): (item: T) => readonly string[] {
  if (name.startsWith("tag:") && tagsOf !== undefined) {
    const key = name.slice("tag:".length);
    return (item) => [tagsOf(item).get(key)].filter((v) => v !== undefined);
  }
  if (name === "tag-key" && tagsOf !== undefined) return (item) => [...tagsOf(item).keys()];
  const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
  if (field === undefined) throw notImplemented(`the filter '${name}'`);
  return field;
}

/** Most filters have no wildcard, and accounts may have ten thousand instances. */
function matcher(patterns: readonly string[]): (value: string) => boolean {
  const plain = new Set(patterns.filter((p) => !/[*?]/.test(p)));
  const wild = patterns.filter((p) => /[*?]/.test(p)).map(wildcard);
  return (value) => plain.has(value) || wild.some((p) => p.test(value));
}

function wildcard(pattern: string): RegExp {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${source}$`);
}

/**
 * One page of a list, and the token of the next. A token is good for the same request only.
 * @throws ApiError InvalidParameterValue for a size out of bounds, InvalidNextToken
 */
export function page<T>(
  account: Ec2Account,
  params: Params,
  items: readonly T[],
  limits: { readonly min: number; readonly max: number },
): { readonly items: readonly T[]; readonly nextToken: string | undefined } {
  const asked = params.integer("MaxResults");
  if (asked !== undefined && (asked < limits.min || asked > limits.max)) {
    const message = `Value ( ${asked} ) for parameter maxResults is invalid. Expecting a value between ${limits.min} and ${limits.max}.`;
    throw new ApiError("InvalidParameterValue", message);
  }
  const token = params.text("NextToken");
  const request = requestKey(params);
  const start = token === undefined ? 0 : offsetOf(token, request);
  const { maxPage, emptyFirstPage } = account.knobs;
  if (emptyFirstPage && token === undefined) return { items: [], nextToken: tokenFor(0, request) };
  const end = start + Math.min(asked ?? limits.max, maxPage);
  return { items: items.slice(start, end), nextToken: end < items.length ? tokenFor(end, request) : undefined };
}

function requestKey(params: Params): string {
  const own = params.leaves().filter(([name]) => name !== "NextToken" && name !== "DryRun");
  return createHash("sha256").update(JSON.stringify(own)).digest("hex").slice(0, 16);
}

function tokenFor(offset: number, request: string): string {
  return Buffer.from(`${request}:${offset}`).toString("base64");
}

function offsetOf(token: string, request: string): number {
  const [from, offset] = Buffer.from(token, "base64").toString().split(":");
  if (from !== request || !/^\d+$/.test(offset ?? "")) {
    throw new ApiError("InvalidNextToken", "The token in NextToken is not valid for this request");
  }
  return Number(offset);
}

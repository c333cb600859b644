import { ArmError } from "./arm-error.ts";
import type { JsonObject } from "./body.ts";
import type { Operation } from "./operation.ts";
import { lastName, parseResourceId, sameResource } from "./resource-id.ts";
import type { Resource, ResourceOf, ResourceType } from "./resources.ts";
import { type ArmCall, type ArmReply, page } from "./route.ts";
import type { Subscription } from "./subscription.ts";

/** What a new resource has besides its own. */
export function common(
  call: ArmCall,
  more: {
    readonly location: string;
    readonly zones?: readonly string[];
    readonly tags?: ReadonlyMap<string, string> | undefined;
  },
): Omit<Resource, "type"> & { readonly id: string; readonly name: string } {
  return newCommon(call.cloud, call.id, more);
}

/** As common(), for a resource that is made along with another. */
export function newCommon(
  cloud: Subscription,
  id: string,
  more: {
    readonly location: string;
    readonly zones?: readonly string[];
    readonly tags?: ReadonlyMap<string, string> | undefined;
  },
) {
  return {
    id,
    name: lastName(id),
    location: more.location,
    zones: more.zones ?? [],
    tags: new Map(more.tags ?? []),
    version: 1,
    state: "Creating" as const,
    createdAt: cloud.now(),
    operation: undefined,
    hiddenLists: cloud.knobs.hiddenLists,
    hiddenReads: cloud.knobs.hiddenReads,
    seeded: false,
    shown: {},
  };
}

/** The parts that every resource shows alike. */
export function shownCommon(r: Resource): JsonObject {
  return {
    id: r.id,
    name: r.name,
    type: r.type,
    ...(r.type.split("/").length === 2 || r.type.startsWith("Microsoft.Compute/galleries")
      ? { location: r.location }
      : {}),
    ...(r.tags.size > 0 && { tags: Object.fromEntries(r.tags) }),
    ...(r.zones.length > 0 && { zones: r.zones }),
    ...r.shown,
  };
}

export function etag(r: Resource): string {
  return `"${r.version}"`;
}

/** Tags as the services take them. @throws ArmError for what they refuse */
export function checkedTags(tags: ReadonlyMap<string, string> | undefined): ReadonlyMap<string, string> | undefined {
  if (tags === undefined) return undefined;
  if (tags.size > 50) {
    throw new ArmError(
      400,
      "InvalidTagCount",
      `The number of tags '${tags.size}' exceeds the allowed maximum of '50'.`,
    );
  }
  for (const [name, value] of tags) {
    if (name === "" || name.length > 512 || /[<>%&\\?/]/.test(name)) {
      const message = `The tag name '${name}' is invalid: it has at most 512 characters and none of <, >, %, &, \\, ?, /.`;
      throw new ArmError(400, "InvalidTagNameCharacters", message);
    }
    if (value.length > 256) {
      throw new ArmError(
        400,
        "InvalidTagValueLength",
        `The value of tag '${name}' exceeds the maximum of 256 characters.`,
      );
    }
  }
  const lower = new Set([...tags.keys()].map((name) => name.toLowerCase()));
  if (lower.size !== tags.size) throw new ArmError(400, "DuplicateTags", "Tag names are the same but for case.");
  return tags;
}

/** A location as it is kept: `West Europe` is `westeurope`. @throws ArmError for one that there is not */
export function checkedLocation(call: ArmCall, type: string, location: string): string {
  const plain = location.toLowerCase().replaceAll(" ", "");
  if (call.cloud.locations.has(plain)) return plain;
  const message = `The provided location '${location}' is not available for resource type '${type}'. List of available regions for the resource type is '${[...call.cloud.locations.keys()].join(",")}'.`;
  throw new ArmError(400, "LocationNotAvailableForResourceType", message);
}

/** The resource that a request reads: not while it is hidden. @throws ArmError ResourceNotFound */
export function read<T extends ResourceType>(call: ArmCall, type: T): ResourceOf<T> {
  const found = call.cloud.need(type, call.id);
  if (found.hiddenReads > 0) {
    found.hiddenReads--;
    throw call.cloud.notFound(type, call.id);
  }
  return found;
}

/** Resources of a type, of a group if the path names one, without those that lists do not show yet. */
export function listed<T extends ResourceType>(call: ArmCall, type: T): ResourceOf<T>[] {
  const group = call.params.resourceGroupName?.toLowerCase();
  return call.cloud
    .all(type)
    .filter((r) => group === undefined || parseResourceId(r.id)?.group.toLowerCase() === group)
    .filter((r) => {
      if (r.hiddenLists <= 0) return true;
      r.hiddenLists--;
      return false;
    });
}

export function list<T extends ResourceType>(
  call: ArmCall,
  type: T,
  render: (resource: ResourceOf<T>) => JsonObject,
): ArmReply {
  return page(call, listed(call, type).map(render));
}

/** @throws ArmError for another location than it is in */
export function checkSameLocation(existing: Resource, location: string): void {
  if (existing.location === location) return;
  const message = `The resource '${existing.name}' already exists in location '${existing.location}' in resource group '${parseResourceId(existing.id)?.group}'. A resource with the same name cannot be created in location '${location}'. Please select a new resource name.`;
  throw new ArmError(409, "InvalidResourceLocation", message);
}

/** Runs the end of a PUT of a resource: it becomes Succeeded, or is Failed. */
export function finishPut(
  cloud: Subscription,
  resource: Resource,
  options: {
    readonly namespace: "Microsoft.Compute" | "Microsoft.Network";
    readonly apiVersion: string;
    readonly afterMs: number;
    readonly finish?: () => void;
  },
): Operation {
  const operation = cloud.begin({
    ...{ namespace: options.namespace, location: resource.location, apiVersion: options.apiVersion },
    dueAt: cloud.now() + options.afterMs,
    finish: () => {
      options.finish?.();
      resource.state = "Succeeded";
      resource.operation = undefined;
      return undefined;
    },
    fail: () => {
      resource.state = "Failed";
      resource.operation = undefined;
    },
  });
  resource.operation = operation;
  return operation;
}

/** A DELETE that takes its time; 204 for what is not there. */
export function beginDelete<T extends ResourceType>(
  call: ArmCall,
  type: T,
  options: {
    readonly namespace: "Microsoft.Compute" | "Microsoft.Network";
    readonly afterMs: number;
    /** @throws ArmError when it must stay */
    readonly check: (resource: ResourceOf<T>) => void;
    readonly finish?: (resource: ResourceOf<T>) => void;
  },
): ArmReply {
  const { cloud } = call;
  const resource = cloud.find(type, call.id);
  if (resource === undefined) return { status: 204 };
  options.check(resource);
  call.commit();
  if (resource.state === "Deleting" && resource.operation !== undefined)
    return { status: 202, operation: resource.operation };
  resource.state = "Deleting";
  resource.operation = cloud.begin({
    ...{ namespace: options.namespace, location: resource.location, apiVersion: call.apiVersion },
    dueAt: cloud.now() + options.afterMs,
    finish: () => {
      options.finish?.(resource);
      cloud.remove(resource);
      return undefined;
    },
  });
  return { status: 202, operation: resource.operation };
}

/** Id of a resource that another one names, if it is a resource of this type and there. */
export function reference<T extends ResourceType>(cloud: Subscription, type: T, id: string): ResourceOf<T> | undefined {
  return cloud.all(type).find((r) => sameResource(r.id, id));
}

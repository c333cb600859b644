/** A resource as ARM names it: names are kept as written and compared without regard to case. */
export interface ResourceId {
  readonly subscription: string;
  readonly group: string;
  /** `Microsoft.Compute` */
  readonly namespace: string;
  /** `virtualMachines`; `virtualNetworks/subnets` for a child. */
  readonly type: string;
  /** One for each part of the type. */
  readonly names: readonly string[];
}

/** @returns undefined for what is no id of a resource in a resource group */
export function parseResourceId(id: string): ResourceId | undefined {
  const found = /^\/subscriptions\/([^/]+)\/resourceGroups\/([^/]+)\/providers\/([^/]+)\/(.+)$/i.exec(id);
  if (found === null) return undefined;
  const [, subscription = "", group = "", namespace = "", rest = ""] = found;
  const parts = rest.split("/");
  if (parts.length % 2 !== 0 || parts.some((p) => p === "")) return undefined;
  return {
    subscription,
    group,
    namespace,
    type: parts.filter((_, i) => i % 2 === 0).join("/"),
    names: parts.filter((_, i) => i % 2 === 1),
  };
}

/** By what resources are found. */
export function resourceKey(id: string): string {
  return id.toLowerCase();
}

export function sameResource(a: string, b: string): boolean {
  return resourceKey(a) === resourceKey(b);
}

export function lastName(id: string): string {
  return id.split("/").at(-1) ?? "";
}

import { createHash } from "node:crypto";
import type { InstanceId } from "../../src/base/ids.ts";
import type { OwnerTags } from "../../src/provider/index.ts";

/** Leaves room for the suffix in a computer name, which has at most 64 characters. Source: REST reference, OSProfile. */
const MAX_BASE = 40;
const SUFFIX = /^[a-z0-9][a-z0-9-]{0,39}-[0-9a-f]{16}$/;

/**
 * Name of the VM that an operation makes, which is its instance id too: the same operation gives the same name, so a
 * repeated create meets the VM that the first one made.
 * @param index of the VM in its batch
 */
export function vmName(name: string, { cluster, createOperation }: OwnerTags, index: number): InstanceId {
  const base = name
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, "-")
    .replace(/^-+/, "")
    .slice(0, MAX_BASE)
    .replace(/-+$/, "");
  const hash = createHash("sha256")
    .update(JSON.stringify([cluster, createOperation, index]))
    .digest("hex");
  return `${base || "podvm"}-${hash.slice(0, 16)}` as InstanceId;
}

/** A name that the provider cannot have given is not worth a request. */
export function isVmName(id: string): boolean {
  return SUFFIX.test(id);
}

export const nicName = (vm: string, index: number): string => `${vm}-nic${index}`;
export const osDiskName = (vm: string): string => `${vm}-os`;
export const dataDiskName = (vm: string, lun: number): string => `${vm}-data${lun}`;
export const publicIpName = (vm: string): string => `${vm}-ip`;

/** Last part of a resource id. */
export function nameOf(resourceId: string | undefined): string {
  return resourceId?.slice(resourceId.lastIndexOf("/") + 1) ?? "";
}

/** The named part of a resource id: `partOf(id, "subnets")`. Names of parts are compared without regard to case. */
export function partOf(resourceId: string, part: string): string {
  const parts = resourceId.split("/");
  const at = parts.findIndex((p) => p.toLowerCase() === part.toLowerCase());
  return at < 0 ? "" : (parts[at + 1] ?? "");
}

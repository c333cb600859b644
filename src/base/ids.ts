import { randomUUID } from "node:crypto";
import { Fault } from "./fault.ts";

declare const brand: unique symbol;
type Brand<B extends string> = string & { readonly [brand]: B };

/** One life of one pod: a UUID the node makes when the sandbox is created, never used again (containerd ids are). */
export type SandboxId = Brand<"SandboxId">;
/** The VM as its provider names it (`i-…`, `local-…`). */
export type InstanceId = Brand<"InstanceId">;
export type OperationId = Brand<"OperationId">;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const CONTAINERD_ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

export function newSandboxId(): SandboxId {
  return randomUUID() as SandboxId;
}

export function newOperationId(): OperationId {
  return `op-${randomUUID()}` as OperationId;
}

/** @throws Fault invalid_argument */
export function parseSandboxId(text: string): SandboxId {
  if (!UUID.test(text)) throw new Fault("invalid_argument", `"${text}" is not a sandbox id: a lower-case UUID is`);
  return text as SandboxId;
}

/** @throws Fault invalid_argument */
export function parseInstanceId(text: string): InstanceId {
  if (!PLAIN.test(text)) throw new Fault("invalid_argument", `"${text}" is not an instance id`);
  return text as InstanceId;
}

/**
 * Checks a container id as containerd does; it becomes part of paths in the guest.
 * @throws Fault invalid_argument
 * Source: containerd pkg/identifiers (at most 76 characters); kata's id rule.
 */
export function checkContainerId(id: string): string {
  if (id.length > 76 || !CONTAINERD_ID.test(id)) {
    throw new Fault("invalid_argument", `container id "${id}" is not valid: 1 to 76 of a-z A-Z 0-9 _ . - are`);
  }
  return id;
}

import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import { GUEST_PORT } from "../../guestwire/index.ts";
import type { Instance } from "../../provider/index.ts";
import type { AcceptedInstance, SandboxChange, SandboxRecord, SandboxStore } from "../store/index.ts";
import { amend } from "./amend.ts";

/** Writes down what the provider said of the sandbox's own instance; the phase follows from whether an address is known. */
export function noteInstance(
  sandboxes: SandboxStore,
  id: SandboxId,
  instance: Instance,
): Promise<SandboxRecord | undefined> {
  return amend(sandboxes, id, (record) => changeFor(record, instance));
}

/**
 * Gives an instance to a sandbox that waits for one. Its record is what decides: it takes one instance, once.
 * @returns whether it is the sandbox's now
 */
export async function giveInstance(sandboxes: SandboxStore, id: SandboxId, instance: Instance): Promise<boolean> {
  const after = await amend(sandboxes, id, (record) =>
    waitsForInstance(record) ? changeFor(record, instance) : undefined,
  );
  return after?.instance?.id === instance.id;
}

export function waitsForInstance(record: SandboxRecord | undefined): boolean {
  return record?.phase === "creating" && record.instance === undefined;
}

/** @throws Fault failed_precondition with the provider's reason for one that has ended or is about to */
export function checkUsable(instance: Instance): void {
  if (isUsable(instance)) return;
  const reason = instance.reason ?? "the provider gives no reason";
  throw new Fault("failed_precondition", `instance ${instance.id} is ${instance.state}: ${reason}`, {
    instanceId: instance.id,
  });
}

export function isUsable({ state }: Instance): boolean {
  return state !== "failed" && state !== "deleting";
}

/** Whether the node may dial: the guest of a pod with volumes has them all by then. */
function changeFor({ phase, request, instance: before }: SandboxRecord, instance: Instance): SandboxChange {
  const waits = request.volumes !== undefined && before === undefined;
  const accepted: AcceptedInstance = {
    id: instance.id,
    addresses: waits ? [] : instance.addresses,
    port: instance.tunnelPort ?? GUEST_PORT,
  };
  const advance = phase === "creating" && accepted.addresses.length > 0;
  return advance ? { instance: accepted, phase: "booting" } : { instance: accepted };
}

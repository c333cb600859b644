import type { Call } from "../base/call.ts";
import type { InstanceId, SandboxId } from "../base/ids.ts";
import type { Shortage } from "./account.ts";
import type { Instance, InstanceSpec } from "./instance.ts";

/** What makes VMs interchangeable until one of them is given to a sandbox. */
export type InstanceClass = Omit<InstanceSpec, "sandboxId">;

/** One way to get a VM: a type in a zone, on a market. */
export interface Place {
  /** Names it for as long as the provider's configuration stays the same. */
  readonly key: string;
  /** For people. */
  readonly text: string;
  /** What else is short when this place is, by why it is short: places with an equal scope share the shortage. */
  readonly scopes: Readonly<Record<Shortage, string>>;
}

/** One create request: as many instances of a class as can be had at one place, at least one. */
export interface InstanceBatch {
  /** `tags.createOperation` is the batch's: with the place it is the idempotency token. */
  readonly class: InstanceClass;
  readonly count: number;
  /** Key of a Place. */
  readonly place: string;
  /** Its share of the account's limits has been taken already, for the first request. */
  readonly admitted: boolean;
}

/** What is told to the cloud once it is known whose VM it is; for people and for a store that lost its records. */
export interface Assignment {
  readonly name: string;
  readonly sandboxId: SandboxId;
  readonly nodeId: string;
}

/**
 * Many VMs in one request, for a cloud that can do that. The provider neither chooses the place nor tries the next one:
 * it says what is short, the adaptor decides.
 */
export interface BatchCreation {
  /** Most that one request should ask for. */
  readonly maxInstances: number;
  /** Most places that should be tried for one VM. */
  readonly maxPlaces: number;
  /** Where a VM of the class could be had, best first. @throws Fault invalid_argument when no place can have it */
  places(wanted: InstanceClass, call: Call): Promise<readonly Place[]>;
  /**
   * The same batch gives the same instances, those included that have ended. Fewer than asked for is a success.
   * @throws Fault whose context has `kind`; a Shortage means that nothing was made, and never will be under this token
   */
  createInstances(batch: InstanceBatch, call: Call): Promise<readonly Instance[]>;
  /** Puts it on the instance's tags. */
  assign(id: InstanceId, assignment: Assignment, call: Call): Promise<void>;
}

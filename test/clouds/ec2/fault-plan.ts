import { Dropped, type InjectedFault } from "../faults.ts";
import { ApiError } from "./api-error.ts";

/** A request that came in, and how it was answered. */
export interface SeenRequest {
  readonly action: string;
  readonly parameters: ReadonlyMap<string, string>;
  readonly accessKeyId: string;
  /** The service's error code; undefined = it succeeded; "dropped" = no answer was given. */
  outcome?: string;
}

/** @throws what the fault says */
export function throwInjected(fault: InjectedFault): void {
  if (fault.drop === true) throw new Dropped();
  if (fault.error !== undefined) throw new ApiError(fault.error.code, fault.error.message, fault.error.status);
}

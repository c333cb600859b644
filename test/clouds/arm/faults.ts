import { setTimeout as delay } from "node:timers/promises";
import { Dropped, type InjectedFault } from "../faults.ts";
import { ArmError } from "./arm-error.ts";

/** Runs a request with the fault around it. */
export async function withFault<T>(fault: InjectedFault | undefined, run: () => Promise<T>): Promise<T> {
  if (fault === undefined) return run();
  if (fault.afterEffect !== true) {
    if (fault.delayMs !== undefined) await delay(fault.delayMs);
    throwIts(fault);
  }
  const result = await run();
  if (fault.afterEffect === true) {
    if (fault.delayMs !== undefined) await delay(fault.delayMs);
    throwIts(fault);
  }
  return result;
}

function throwIts({ drop, error }: InjectedFault): void {
  if (drop === true) throw new Dropped();
  if (error === undefined) return;
  const headers = error.retryAfter === undefined ? {} : { "retry-after": error.retryAfter };
  throw new ArmError(error.status ?? 500, error.code, error.message, { headers });
}

import { ApiError } from "./api-error.ts";

/** Something that goes wrong with one of the next requests. */
export interface InjectedFault {
  /** Undefined = the next request, whichever it is. */
  readonly action?: string;
  /** After how many matching requests it happens; 0 = at the first. */
  readonly skip?: number;
  /** How often; 1 when not given. */
  readonly times?: number;
  /** The action takes effect before the fault. */
  readonly afterEffect?: boolean;
  /** Closes the connection instead of answering. */
  readonly drop?: boolean;
  /** Waits before it answers, ms. */
  readonly delayMs?: number;
  readonly error?: {
    readonly code: string;
    readonly message: string;
    readonly status?: number;
    readonly retryAfter?: string;
  };
}

/** A request that came in, and how it was answered. */
export interface SeenRequest {
  readonly action: string;
  readonly parameters: ReadonlyMap<string, string>;
  readonly accessKeyId: string;
  /** The service's error code; undefined = it succeeded; "dropped" = no answer was given. */
  outcome?: string;
}

/** The connection is to be closed without an answer. */
export class Dropped extends Error {}

/** Which requests are to fail. */
export class FaultPlan {
  #faults: { fault: InjectedFault; skip: number; left: number }[] = [];

  inject(fault: InjectedFault): void {
    this.#faults.push({ fault, skip: fault.skip ?? 0, left: fault.times ?? 1 });
  }

  next(action: string): InjectedFault | undefined {
    const entry = this.#faults.find(({ fault }) => fault.action === undefined || fault.action === action);
    if (entry === undefined) return undefined;
    if (entry.skip > 0) {
      entry.skip--;
      return undefined;
    }
    entry.left--;
    if (entry.left <= 0) this.#faults = this.#faults.filter((e) => e !== entry);
    return entry.fault;
  }
}

/** @throws what the fault says */
export function throwInjected(fault: InjectedFault): void {
  if (fault.drop === true) throw new Dropped();
  if (fault.error !== undefined) throw new ApiError(fault.error.code, fault.error.message, fault.error.status);
}

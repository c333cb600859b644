/** Something that goes wrong with one of the next requests. */
export interface InjectedFault {
  /** The operation as the cloud names it; undefined = the next request, whichever it is. */
  readonly action?: string;
  /** After how many matching requests it happens; 0 = at the first. */
  readonly skip?: number;
  /** How often; 1 when not given. */
  readonly times?: number;
  /** The request takes effect before the fault. */
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

/** The request is not answered. */
export class Dropped extends Error {}

/** Faults that wait for their request. */
export class FaultQueue {
  #waiting: { readonly fault: InjectedFault; skip: number; left: number }[] = [];

  add(fault: InjectedFault): void {
    this.#waiting.push({ fault, skip: fault.skip ?? 0, left: fault.times ?? 1 });
  }

  next(action: string): InjectedFault | undefined {
    const entry = this.#waiting.find(({ fault }) => fault.action === undefined || fault.action === action);
    if (entry === undefined) return undefined;
    if (entry.skip > 0) {
      entry.skip--;
      return undefined;
    }
    entry.left--;
    if (entry.left <= 0) this.#waiting = this.#waiting.filter((e) => e !== entry);
    return entry.fault;
  }
}

/** Time as a cloud under test sees it. */
export interface Clock {
  /** ms since the epoch */
  now(): number;
}

export const realClock: Clock = { now: () => Date.now() };

/** Starts at the real time, so that signatures are in date, and moves only when told. */
export class ManualClock implements Clock {
  #now = Date.now();

  now(): number {
    return this.#now;
  }

  advance(ms: number): void {
    this.#now += ms;
  }
}

/** What the published request limits are made of: `capacity` at once, then `refillPerSecond`. */
export interface Bucket {
  readonly capacity: number;
  readonly refillPerSecond: number;
}

export class TokenBucket {
  readonly #bucket: Bucket;
  readonly #clock: Clock;
  #tokens: number;
  #at: number;

  constructor(bucket: Bucket, clock: Clock) {
    this.#bucket = bucket;
    this.#clock = clock;
    this.#tokens = bucket.capacity;
    this.#at = clock.now();
  }

  has(cost: number): boolean {
    return this.#level() >= cost;
  }

  take(cost: number): void {
    this.#tokens = this.#level() - cost;
  }

  #level(): number {
    const now = this.#clock.now();
    const { capacity, refillPerSecond } = this.#bucket;
    this.#tokens = Math.min(capacity, this.#tokens + ((now - this.#at) / 1000) * refillPerSecond);
    this.#at = now;
    return this.#tokens;
  }
}

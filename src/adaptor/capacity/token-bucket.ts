import type { RateLimit } from "../../provider/index.ts";

/** What is believed of one of the cloud's buckets. Times are ms since the epoch. */
export class TokenBucket {
  readonly limit: RateLimit;
  /** Share of the published rate that is counted on, 0 to 1: others may use the account too. */
  factor = 1;
  #tokens: number;
  #at: number;

  constructor(limit: RateLimit, now: number) {
    this.limit = limit;
    this.#tokens = limit.burst;
    this.#at = now;
  }

  level(now: number): number {
    const elapsed = Math.max(0, now - this.#at);
    this.#tokens = Math.min(this.limit.burst, this.#tokens + (elapsed / 1000) * this.#perSecond);
    this.#at = Math.max(this.#at, now);
    return this.#tokens;
  }

  /** More than there is makes the level negative: ask first. */
  take(cost: number, now: number): void {
    this.#tokens = this.level(now) - cost;
  }

  /** Until so many are there; what the bucket can never hold counts as a full bucket. */
  waitMs(cost: number, now: number): number {
    const lacking = Math.min(cost, this.limit.burst) - this.level(now);
    // One more: the cloud's own arithmetic may round the other way.
    return lacking <= 0 ? 0 : Math.ceil((lacking / this.#perSecond) * 1000) + 1;
  }

  /** The cloud has said that there is no more than this. */
  atMost(level: number, now: number): void {
    this.#tokens = Math.min(this.level(now), level);
  }

  slowDown(by: number, least: number, now: number): void {
    this.level(now);
    this.factor = Math.max(least, this.factor * by);
  }

  speedUp(step: number, now: number): void {
    if (this.factor === 1) return;
    this.level(now);
    this.factor = Math.min(1, this.factor + step);
  }

  get #perSecond(): number {
    return this.limit.perSecond * this.factor;
  }
}

import type { Call } from "../../base/call.ts";
import type { Clock } from "../../base/clock.ts";
import { ended } from "../../base/retry.ts";
import type { RequestAnswer, RequestCost, RequestFamily, RequestPass } from "../../provider/index.ts";
import { TokenBucket } from "./token-bucket.ts";

/** What a request wants, asked anew whenever it might go. */
export interface Wish {
  /** It goes as soon as it can have so many instances. */
  atLeast(): number;
  /** It takes as many as there are up to this; 0 = it is not wanted any more. */
  atMost(): number;
}

interface Waiter {
  readonly wish: Wish;
  readonly background: boolean;
  grant(instances: number): void;
}

/** The rate that is counted on shrinks by this when even an empty bucket was too much; each success adds a step again. */
const SLOW_DOWN = 0.7;
const SPEED_UP = 0.05;
const LEAST_FACTOR = 0.1;
/** Share of the requests' bucket that background work leaves for what comes meanwhile. */
const RESERVE = 0.2;

/**
 * The limits of one family of requests: who may go when. A refusal corrects what the buckets are believed to hold, which
 * by itself costs no rate; only when the cloud refuses what was waited for since they were believed to be empty is its
 * rate believed to be lower than published (AIMD). So a clock that is a little off, or a neighbour's burst, loses no budget.
 */
export class FamilyLimiter {
  readonly requests: TokenBucket;
  readonly instances: TokenBucket | undefined;
  /** Requests that the cloud refused though they had been let through. */
  throttled = 0;
  readonly #clock: Clock;
  readonly #waiting: Waiter[] = [];
  #cancelTimer: (() => void) | undefined;
  #notBefore = 0;
  #refusals = 0;
  /** By the last correction. */
  #emptied = false;
  #correctedAt = Number.NEGATIVE_INFINITY;

  constructor(family: RequestFamily, clock: Clock) {
    this.#clock = clock;
    this.requests = new TokenBucket(family.requests, this.#now());
    this.instances = family.instances === undefined ? undefined : new TokenBucket(family.instances, this.#now());
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Waits for one request's turn. @returns how many instances it may ask for. @throws the call's end */
  async take(wish: Wish, call: Call): Promise<number> {
    if (call.signal.aborted) throw ended(call);
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const onAbort = (): void => {
      this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
      reject(ended(call));
      this.#pump();
    };
    const waiter: Waiter = {
      ...{ wish, background: call.background ?? false },
      grant: (instances) => {
        call.signal.removeEventListener("abort", onAbort);
        resolve(instances);
      },
    };
    call.signal.addEventListener("abort", onAbort, { once: true });
    const behind = waiter.background ? -1 : this.#waiting.findIndex((w) => w.background);
    this.#waiting.splice(behind === -1 ? this.#waiting.length : behind, 0, waiter);
    this.#pump();
    return promise;
  }

  /** The pass of a request whose tokens are taken. */
  pass(cost: RequestCost): RequestPass {
    const began = this.#now();
    return { answered: (answer) => this.#learn(answer, cost, began) };
  }

  #now(): number {
    return this.#clock.now().getTime();
  }

  /** Lets go whoever can. Strictly in turn: a large request is not starved by small ones. */
  #pump(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    for (let head = this.#waiting[0]; head !== undefined; head = this.#waiting[0]) {
      const now = this.#now();
      const most = head.wish.atMost();
      const waitMs = most === 0 && head.wish.atLeast() > 0 ? 0 : this.#waitMs(head, now);
      if (waitMs > 0) {
        this.#cancelTimer = this.#clock.after(waitMs, () => this.#pump());
        return;
      }
      this.#waiting.shift();
      head.grant(this.#spend(head, most, now));
    }
  }

  #waitMs({ wish, background }: Waiter, now: number): number {
    const reserve = background ? this.requests.limit.burst * RESERVE : 0;
    return Math.max(
      this.#notBefore - now,
      this.requests.waitMs(1 + reserve, now),
      this.instances?.waitMs(wish.atLeast(), now) ?? 0,
    );
  }

  #spend({ wish }: Waiter, most: number, now: number): number {
    const least = wish.atLeast();
    if (most === 0 && least > 0) return 0; // not wanted any more: nothing is spent
    const there = this.instances === undefined ? most : Math.floor(this.instances.level(now));
    const instances = Math.min(most, Math.max(least, there));
    this.requests.take(1, now);
    this.instances?.take(instances, now);
    return instances;
  }

  #learn(answer: RequestAnswer, cost: RequestCost, began: number): void {
    const now = this.#now();
    if (answer.kind === "done") {
      this.#refusals = 0;
      for (const bucket of this.#buckets(cost)) bucket.speedUp(SPEED_UP, now);
      return;
    }
    this.throttled++;
    this.#notBefore = Math.max(this.#notBefore, now + (answer.retryAfterMs ?? 0));
    // What had gone out before the last correction says nothing about the corrected bucket.
    if (began >= this.#correctedAt) {
      this.#correctedAt = now;
      this.#refusals++;
      // It had waited for all its tokens since the bucket was believed to be empty.
      if (this.#refusals > 1 && this.#emptied) {
        for (const bucket of this.#buckets(cost)) bucket.slowDown(SLOW_DOWN, LEAST_FACTOR, now);
      }
      this.requests.atMost(0, now);
      this.#emptied = this.#correctInstances(cost, now);
    }
    this.#pump();
  }

  /**
   * What was refused is not spent there; but there are fewer than that, and with each refusal fewer are believed in. Not at
   * the first one while there should have been plenty: then it was the requests' bucket, the cloud does not say which.
   * @returns whether none are
   */
  #correctInstances({ instances }: RequestCost, now: number): boolean {
    if (this.instances === undefined || instances === 0) return true;
    const plenty = this.instances.level(now) >= instances;
    this.instances.take(-instances, now);
    if (plenty && this.#refusals === 1) return false;
    const believed = Math.max(0, instances - 4 ** Math.min(this.#refusals - 1, 10));
    this.instances.atMost(believed, now);
    return believed === 0;
  }

  #buckets({ instances }: RequestCost): readonly TokenBucket[] {
    return this.instances === undefined || instances === 0 ? [this.requests] : [this.requests, this.instances];
  }
}

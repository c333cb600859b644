import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { VirtualClock } from "../../../test/support/virtual-clock.ts";
import { background } from "../../base/call.ts";
import { sleepOn } from "../../base/clock.ts";
import type { RateLimit, RequestFamily } from "../../provider/index.ts";
import { RateLimiter } from "./rate-limiter.ts";
import { TokenBucket } from "./token-bucket.ts";

const START = new Date(1_000_000);

/** A cloud that keeps its buckets to itself and answers after a while. */
class Cloud {
  served = 0;
  instances = 0;
  refused = 0;
  readonly #clock: VirtualClock;
  readonly #buckets: TokenBucket[];
  readonly #latencyMs: () => number;

  constructor(clock: VirtualClock, family: RequestFamily, latencyMs: () => number) {
    this.#clock = clock;
    const now = clock.now().getTime();
    this.#buckets = [family.requests, ...(family.instances === undefined ? [] : [family.instances])].map(
      (limit) => new TokenBucket(limit, now),
    );
    this.#latencyMs = latencyMs;
  }

  async request(instances: number): Promise<boolean> {
    await sleepOn(this.#clock, this.#latencyMs(), background());
    const taken = this.take(instances);
    await sleepOn(this.#clock, this.#latencyMs(), background());
    return taken;
  }

  take(instances: number): boolean {
    const now = this.#clock.now().getTime();
    const costs = [1, instances];
    if (!this.#buckets.every((bucket, at) => bucket.level(now) >= (costs[at] ?? 0))) {
      this.refused++;
      return false;
    }
    for (const [at, bucket] of this.#buckets.entries()) bucket.take(costs[at] ?? 0, now);
    this.served++;
    this.instances += instances;
    return true;
  }
}

async function through(limiter: RateLimiter, cloud: Cloud, instances: number): Promise<void> {
  for (;;) {
    const pass = await limiter.enter("Run", { instances }, background());
    const done = await cloud.request(instances);
    pass.answered(done ? { kind: "done" } : { kind: "throttled" });
    if (done) return;
  }
}

const LIMIT = fc.record({
  burst: fc.integer({ min: 1, max: 200 }),
  perSecond: fc.double({ min: 0.1, max: 50, noNaN: true }),
}) as fc.Arbitrary<RateLimit>;

describe("a token bucket", () => {
  it("never gives more than its burst and its rate, and what it says about waiting is true", () => {
    fc.assert(
      fc.property(
        LIMIT,
        fc.array(fc.tuple(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 0, max: 5_000 }))),
        (limit, asks) => {
          const bucket = new TokenBucket(limit, 0);
          let now = 0;
          let given = 0;
          for (const [cost, pauseMs] of asks) {
            now += pauseMs;
            const wanted = Math.min(cost, limit.burst);
            const waitMs = bucket.waitMs(wanted, now);
            if (waitMs > 0) assert.ok(bucket.level(now) < wanted);
            now += waitMs;
            assert.ok(bucket.level(now) >= wanted, "it was waited for as long as it said");
            bucket.take(wanted, now);
            given += wanted;
            assert.ok(given <= limit.burst + (now / 1000) * limit.perSecond + 1e-6);
          }
        },
      ),
    );
  });
});

describe("the limiter", { timeout: 60_000 }, () => {
  const RUN: RequestFamily = { requests: { burst: 5, perSecond: 2 }, instances: { burst: 100, perSecond: 2 } };

  it("uses the whole budget of a cloud whose answers take a while, whatever their times are", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 3_000 }), fc.integer(), async (latencyMs, seed) => {
        const clock = new VirtualClock(START);
        let random = seed >>> 0;
        const jitter = (): number => {
          random = (random * 1_664_525 + 1_013_904_223) >>> 0;
          return (latencyMs * random) / 2 ** 32;
        };
        const limiter = new RateLimiter({ account: { families: { Run: RUN } }, clock });
        const cloud = new Cloud(clock, RUN, jitter);
        const began = clock.now().getTime();
        await clock.run(Promise.all(Array.from({ length: 60 }, () => through(limiter, cloud, 10))));
        const seconds = (clock.now().getTime() - began) / 1000;
        // 600 instances, 100 at once: 250 s by the bucket alone.
        assert.ok(seconds <= 250 * 1.05 + (2 * latencyMs) / 1000, `${seconds} s`);
        assert.ok(cloud.refused <= 6, `${cloud.refused} refused`);
      }),
      { numRuns: 15 },
    );
  });

  it("leaves a neighbour its part without losing its own, and takes all of it again later", async () => {
    const clock = new VirtualClock(START);
    const family: RequestFamily = { requests: { burst: 10, perSecond: 10 } };
    const limiter = new RateLimiter({ account: { families: { Run: family } }, clock });
    const cloud = new Cloud(clock, family, () => 20);
    const neighbour = async (): Promise<void> => {
      for (let n = 0; n < 600; n++) {
        await sleepOn(clock, 200, background());
        cloud.take(0); // 5 a second for two minutes
      }
    };
    const began = clock.now().getTime();
    let ours = 0;
    const worker = async (until: number): Promise<void> => {
      while (clock.now().getTime() < began + until) {
        await through(limiter, cloud, 0);
        ours++;
      }
    };
    const busy = neighbour();
    await clock.run(Promise.all(Array.from({ length: 20 }, () => worker(120_000))));
    assert.ok(ours >= 0.8 * 600, `${ours} of 600 beside a neighbour`);
    assert.ok(cloud.refused < 0.5 * ours, `${cloud.refused} refused`);
    await clock.run(busy);
    const from = clock.now().getTime();
    ours = 0;
    await clock.run(Promise.all(Array.from({ length: 20 }, () => worker(from - began + 60_000))));
    assert.ok(ours >= 0.95 * 600, `${ours} of 600 alone`);
  });

  it("waits as long as the cloud says", async () => {
    const clock = new VirtualClock(START);
    const limiter = new RateLimiter({ account: { families: { Run: RUN } }, clock });
    const pass = await clock.run(limiter.enter("Run", { instances: 1 }, background()));
    pass.answered({ kind: "throttled", retryAfterMs: 7_000 });
    const began = clock.now().getTime();
    await clock.run(limiter.enter("Run", { instances: 1 }, background()));
    assert.ok(clock.now().getTime() - began >= 7_000);
  });

  it("lets what somebody waits for go before what nobody does, and forgets who gave up", async () => {
    const clock = new VirtualClock(START);
    const family: RequestFamily = { requests: { burst: 1, perSecond: 1 } };
    const limiter = new RateLimiter({ account: { families: { Run: family } }, clock });
    await limiter.enter("Run", { instances: 0 }, background());
    const order: string[] = [];
    const ask = async (name: string, call: { signal: AbortSignal; background?: boolean }): Promise<void> => {
      await limiter.enter("Run", { instances: 0 }, call);
      order.push(name);
    };
    const gone = new AbortController();
    const asked = [
      ask("tags", { ...background(), background: true }),
      ask("gave up", gone).catch(() => undefined),
      ask("pod 1", background()),
      ask("pod 2", background()),
    ];
    gone.abort();
    await clock.run(Promise.all(asked));
    assert.deepEqual(order, ["pod 1", "pod 2", "tags"]);
  });

  it("gives a request as many instances as there are when it is its turn", async () => {
    const clock = new VirtualClock(START);
    const limiter = new RateLimiter({ account: { families: { Run: RUN } }, clock });
    let waiting = 250;
    const admit = async (): Promise<number> => {
      const wish = { atLeast: () => Math.min(waiting, 10), atMost: () => Math.min(waiting, 60) };
      const count = await limiter.admit("Run", wish, background());
      waiting -= count;
      return count;
    };
    const counts = await clock.run((async () => [await admit(), await admit(), await admit(), await admit()])());
    assert.deepEqual(counts.slice(0, 2), [60, 40]);
    assert.ok(
      counts.slice(2).every((n) => n >= 10 && n < 12),
      String(counts),
    );
    waiting = 0;
    assert.equal(await limiter.admit("Run", { atLeast: () => 1, atMost: () => 0 }, background()), 0);
  });

  it("takes an adaptor's part of each limit", async () => {
    const clock = new VirtualClock(START);
    const family: RequestFamily = { requests: { burst: 10, perSecond: 2 } };
    const limiter = new RateLimiter({ account: { families: { Run: family } }, adaptors: 2, clock });
    const began = clock.now().getTime();
    await clock.run(
      Promise.all(Array.from({ length: 15 }, () => limiter.enter("Run", { instances: 0 }, background()))),
    );
    const seconds = (clock.now().getTime() - began) / 1000;
    assert.ok(seconds >= 10 && seconds < 10.1, `${seconds} s`);
  });
});

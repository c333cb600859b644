import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type Clock, realClock } from "../../base/clock.ts";
import { silentLogger } from "../../base/log.ts";
import { Loops } from "./loops.ts";

describe("loops", { timeout: 10_000 }, () => {
  let pauses: number[];
  let situation: string;
  let lead: number | undefined;
  let loops: Loops;
  const clock: Clock = {
    now: realClock.now,
    after(ms, work, options) {
      pauses.push(ms);
      return realClock.after(ms, work, options);
    },
  };

  beforeEach(() => {
    pauses = [];
    situation = "one";
    lead = 1;
    const facts = { lead: async () => lead };
    const now = (): Date => new Date();
    loops = new Loops({ facts, log: silentLogger(), now, clock, situation: () => situation });
  });
  afterEach(() => loops[Symbol.asyncDispose]());

  /** Runs a loop. @returns how many passes it has begun */
  function run(intervalMs: number, passMs: number): () => number {
    let passes = 0;
    const reconcile = async () => {
      passes++;
      await delay(passMs);
      return { examined: 0, repaired: 0 };
    };
    loops.start([{ name: "test", intervalMs, reconcile }]);
    return () => passes;
  }

  async function until(holds: () => boolean): Promise<void> {
    while (!holds()) await delay(5);
  }

  it("stretch the pause after a slow pass, but not for long", async () => {
    run(10, 700);
    await until(() => pauses.length === 1);
    assert.equal(pauses[0], 10_000);
  });

  it("keep their interval after a short pass", async () => {
    run(1_000, 0);
    await until(() => pauses.length === 1);
    assert.equal(pauses[0], 1_000);
  });

  it("look at once when the situation has changed", async () => {
    const passes = run(3_600_000, 0);
    await until(() => pauses.length === 1);
    situation = "two";
    await until(() => passes() === 2);
  });

  it("are soon there when another adaptor's lead is over, however seldom they run", async () => {
    lead = undefined;
    const passes = run(3_600_000, 0);
    await until(() => pauses.length === 1);
    assert.equal(passes(), 0);
    assert.ok((pauses[0] ?? 0) <= 5_000);
    lead = 2;
    await until(() => passes() === 1 && loops.status[0]?.leads === true);
  });

  it("end at once though they pause", async () => {
    run(3_600_000, 0);
    await until(() => pauses.length === 1);
    await loops[Symbol.asyncDispose]();
  });
});

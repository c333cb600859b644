import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { background, type Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { race } from "../../base/retry.ts";
import { together } from "./together.ts";

describe("what is done side by side", () => {
  const hang = (call: Call): Promise<never> => race(new Promise<never>(() => undefined), call);

  it("gives what each gave, in their order", async () => {
    const late = async (): Promise<string> => new Promise((resolve) => setTimeout(() => resolve("late"), 10));
    assert.deepEqual(await together(background(), late, async () => 7), ["late", 7]);
  });

  it("fails with what failed first, and only when nothing of it goes on", async () => {
    const over: string[] = [];
    const waits = async (call: Call): Promise<void> => {
      try {
        await hang(call);
      } finally {
        await new Promise((resolve) => setTimeout(resolve, 20));
        over.push("the one that waited");
      }
    };
    const fails = async (): Promise<void> => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      throw new Fault("not_found", "no such thing");
    };
    await assert.rejects(together(background(), waits, fails), { code: "not_found" });
    assert.deepEqual(over, ["the one that waited"]);
  });

  it("ends with its call", async () => {
    const stop = new AbortController();
    const work = together({ signal: stop.signal }, hang, hang);
    stop.abort();
    await assert.rejects(work, { code: "cancelled" });
  });
});

import assert from "node:assert/strict";
import { it } from "node:test";
import { deferred } from "./deferred.ts";
import { KeyedMutex } from "./mutex.ts";

it("a keyed mutex runs one after another for a key, beside other keys, whatever fails", async () => {
  const mutex = new KeyedMutex();
  const gate = deferred<void>();
  const done: string[] = [];
  const note = (name: string) => async (): Promise<void> => void done.push(name);
  const first = mutex.run("a", async () => {
    await gate.promise;
    done.push("a1");
    throw new Error("a1 fails");
  });
  const second = mutex.run("a", note("a2"));
  await mutex.run("b", note("b1"));
  assert.deepEqual(done, ["b1"]);
  gate.resolve();
  await assert.rejects(first, /a1 fails/);
  await second;
  assert.deepEqual(done, ["b1", "a1", "a2"]);
  await mutex.run("a", note("a3"));
  assert.equal(done.at(-1), "a3");
});

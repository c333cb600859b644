import assert from "node:assert/strict";
import { test } from "node:test";
import { Children } from "./children.ts";

// One process has one set of children, so the cases share it; node:test's own children are not touched in this file.
const children = new Children();
children.start();

/** Ends 0.3 s later at the earliest: were its parent still there, the shell itself would take the exit status. */
async function orphan(script: string): Promise<number> {
  const { stdout } = await children.run("sh", ["-c", `(sleep 0.3; ${script}) >/dev/null 2>&1 & echo $!`]);
  return Number(stdout);
}

test("an orphan's exit code is seen, while it runs and after it has gone", async () => {
  const slow = await orphan("exit 37");
  assert.equal(await children.exitOf(slow), 37);
  const quick = await orphan("exit 3");
  await children.run("sleep", ["0.6"]);
  assert.equal(await children.exitOf(quick), 3);
});

test("a killed orphan gives 128 + signal", async () => {
  const pid = await orphan("exec sleep 60");
  process.kill(pid, "SIGKILL");
  assert.equal(await children.exitOf(pid), 137);
});

test("programs that Node spawned keep their own exit codes among many orphans", async () => {
  const orphans: Promise<number>[] = [];
  const own = Array.from({ length: 20 }, async (_, n) => {
    orphans.push(orphan(`exit ${n}`).then((pid) => children.exitOf(pid)));
    return (await children.run("sh", ["-c", `exit ${100 + n}`])).exitCode;
  });
  assert.deepEqual(
    await Promise.all(own),
    Array.from({ length: 20 }, (_, n) => 100 + n),
  );
  assert.deepEqual(
    (await Promise.all(orphans)).sort((a, b) => a - b),
    Array.from({ length: 20 }, (_, n) => n),
  );
  children.stop();
});

test("a program that is not there is named", async () => {
  await assert.rejects(children.run("no-such-program-here", []), /no-such-program-here cannot be started/);
});

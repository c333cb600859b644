import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { EventSink, until } from "../../../test/fakes/shim.ts";
import { silentLogger } from "../../base/log.ts";
import { TaskOOM } from "../../gen/containerd/events/task.ts";
import { Code, StatusError } from "../../ttrpc/index.ts";
import { EventJournal } from "./event-journal.ts";
import { EventQueue } from "./event-queue.ts";

let dir: string;
let sink: EventSink;
let queue: EventQueue;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "events-"));
  sink = new EventSink(join(dir, "sock"));
  queue = new EventQueue(new EventJournal(join(dir, "events"), sink.path, silentLogger()), silentLogger());
});
afterEach(async () => {
  queue.close();
  await sink.close();
  await rm(dir, { recursive: true, force: true });
});

const push = (n: number): Promise<void> => {
  const value = Buffer.from(TaskOOM.encode({ containerId: String(n) }).finish());
  return queue.push({
    timestamp: undefined,
    namespace: "n",
    topic: "/tasks/oom",
    event: { typeUrl: "containerd.events.TaskOOM", value },
  });
};
const arrived = (): number[] => sink.events.map((e) => Number(e.message.containerId));
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe("events", () => {
  it("arrive in the order in which they were pushed", async () => {
    await sink.listen();
    let busy = 0;
    sink.beforeEach = async () => {
      assert.equal(++busy, 1, "two events at once");
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
      busy--;
    };
    for (const n of upTo(50)) void push(n);
    await until(() => sink.events.length === 50);
    assert.deepEqual(arrived(), upTo(50));
  });

  it("wait for a containerd that is away, and go on after its restart", async () => {
    for (const n of upTo(3)) void push(n);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await sink.listen();
    await until(() => sink.events.length === 3);
    await sink.close();
    void push(3);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await sink.listen();
    void push(4);
    await until(() => sink.events.length === 5);
    assert.deepEqual(arrived(), upTo(5));
  });

  it("go over one connection, also after a pause longer than its deadline", { timeout: 20_000 }, async () => {
    await sink.listen();
    void push(0);
    await until(() => sink.events.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 5_500));
    void push(1);
    await until(() => sink.events.length === 2);
    assert.equal(sink.connections, 1);
  });

  it("are tried again when they are refused, and one that always is does not hold up the rest", {
    timeout: 20_000,
  }, async () => {
    await sink.listen();
    let refusals = 0;
    sink.beforeEach = async () => {
      if (refusals++ < 5) throw new StatusError(Code.invalidArgument, "no such topic");
    };
    void push(0);
    void push(1);
    await until(() => sink.events.length === 1, 10_000);
    assert.deepEqual([arrived(), refusals], [[1], 6]);
  });

  it("that are too many are dropped from the oldest on", async () => {
    const kept = upTo(2_050).map((n) => push(n));
    assert.equal(queue.length, 2_048);
    await Promise.all(kept);
  });
});

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { EventSink, ShimFixture, until } from "../../../test/fakes/shim.ts";
import { background } from "../../base/call.ts";
import { silentLogger } from "../../base/log.ts";
import { TaskOOM } from "../../gen/containerd/events/task.ts";
import { Status } from "../../gen/containerd/types/task/task.ts";
import { EventJournal } from "./event-journal.ts";
import { EventQueue } from "./event-queue.ts";

let f: ShimFixture;
beforeEach(async () => {
  f = await ShimFixture.create();
});
afterEach(() => f.close());

const process = { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", value: Buffer.from("") };
const execRequest = (execId: string) => ({
  ...{ id: "c1", execId, terminal: false, stdin: "", stdout: "/out", stderr: "" },
  spec: { ...process, value: Buffer.from(JSON.stringify({ args: ["sh"], cwd: "/" })) },
});

async function running(): Promise<void> {
  await f.task().create(await f.createRequest("c1"));
  await f.task().start({ id: "c1", execId: "" });
}

/** The daemon is killed; its successor has the same relay. @param waiting keys of Task calls that containerd waits for */
async function nextDaemon(...waiting: string[]): Promise<void> {
  f.relay.taskKeys.clear();
  for (const key of waiting) f.relay.taskKeys.add(key);
  await f.nextShim().recover(background());
}

const state = async (execId = "") => (await f.task().state({ id: "c1", execId })).status;
const times = (method: string): number => f.relay.agent.calls.filter((called) => called === method).length;

describe("the next daemon on the same relay", () => {
  it("goes on with a pod, its execs and their ends", async () => {
    await running();
    await f.task().exec(execRequest("e1"));
    await f.task().start({ id: "c1", execId: "e1" });
    await f.task().exec(execRequest("e2"));
    const pid = (await f.task().connect({ id: "c1" })).taskPid;
    await nextDaemon();
    assert.deepEqual(
      [await state(), await state("e1"), await state("e2")],
      [Status.RUNNING, Status.RUNNING, Status.CREATED],
    );
    assert.equal((await f.task().connect({ id: "c1" })).taskPid, pid);
    assert.equal(f.hypervisor.stopped.length, 0);
    const [sandbox] = f.shim.status();
    assert.deepEqual([sandbox?.state, sandbox?.guestKernel, sandbox?.instanceId], ["running", "6.1.0-guest", "vm-1"]);
    assert.deepEqual(f.shim.liveSandboxes("remote"), [sandbox?.sandboxId]);
    await f.task().start({ id: "c1", execId: "e2" });
    const [first = "", second = ""] = f.relay.agent.execIds("c1");
    f.relay.agent.end("c1", 3, first);
    f.relay.agent.end("c1", 4, second);
    assert.equal((await f.task().wait({ id: "c1", execId: "e1" })).exitStatus, 3);
    assert.equal((await f.task().wait({ id: "c1", execId: "e2" })).exitStatus, 4);
    await f.task().kill({ id: "c1", execId: "", signal: 15, all: false });
    assert.equal((await f.task().wait({ id: "c1", execId: "" })).exitStatus, 143);
    assert.equal((await f.task().delete({ id: "c1", execId: "" })).exitStatus, 143);
    await until(() => f.hypervisor.stopped.length === 1);
  });

  it("reports an exit that happened while there was none, with its code, once", async () => {
    await running();
    await until(() => f.sink.topics.includes("/tasks/start"));
    f.nextShim(); // the first one is dead from here on
    f.relay.agent.end("c1", 37);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const before = Date.now();
    await f.shim.recover(background());
    const { exitStatus, exitedAt } = await f.task().wait({ id: "c1", execId: "" });
    assert.equal(exitStatus, 37);
    const ms = Number(exitedAt?.seconds ?? 0n) * 1_000 + (exitedAt?.nanos ?? 0) / 1e6;
    assert.ok(ms < before, "its time is the guest's answer, not our coming");
    await until(() => f.sink.topics.includes("/tasks/exit"));
    assert.deepEqual(f.sink.topics, ["/tasks/create", "/tasks/start", "/tasks/exit"]);
  });

  it("gets a Start that was on its way, and the guest starts one process", async () => {
    await f.task().create(await f.createRequest("c1"));
    let answer = (): void => {};
    const asked = new Promise<void>((resolve) => {
      f.relay.agent.on.startContainer = async () => {
        resolve();
        await new Promise<void>((done) => {
          answer = done;
        });
        return {};
      };
    });
    f.relay.taskKeys.add("k1");
    void f.task({ key: "k1" }).start({ id: "c1", execId: "" });
    await asked;
    await nextDaemon("k1");
    const again = f.task({ key: "k1" }).start({ id: "c1", execId: "" });
    answer();
    await again;
    assert.deepEqual([times("StartContainer"), await state()], [1, Status.RUNNING]);
    await f.task({ key: "k1" }).start({ id: "c1", execId: "" });
    await assert.rejects(f.task({ key: "k2" }).start({ id: "c1", execId: "" }), /started already/);
  });

  it("ends a process whose Start nobody waits for any more", async () => {
    await f.task().create(await f.createRequest("c1"));
    const asked = new Promise<void>((resolve) => {
      f.relay.agent.on.startContainer = () => {
        resolve();
        return new Promise(() => {});
      };
    });
    void f.task({ key: "k1" }).start({ id: "c1", execId: "" });
    await asked;
    await nextDaemon();
    assert.equal((await f.task().wait({ id: "c1", execId: "" })).exitStatus, 255);
    assert.deepEqual(
      f.relay.agent.signals.map((s) => s.signal),
      [9],
    );
  });

  it("stops a VM that was booting, and starts over when Create comes again", async () => {
    const request = await f.createRequest("c1");
    const booting = new Promise<void>((resolve) => {
      f.hypervisor.beforeStart = () => {
        resolve();
        return new Promise(() => {});
      };
    });
    void f.task({ key: "k1" }).create(request);
    await booting;
    const [first] = f.hypervisor.started;
    f.hypervisor.beforeStart = async () => {};
    await nextDaemon("k1");
    assert.deepEqual(
      f.hypervisor.stopped.map((s) => s.id),
      [first],
    );
    await f.task({ key: "k1" }).create(request);
    assert.equal(await state(), Status.CREATED);
    assert.equal(f.hypervisor.started.length, 2);
    assert.equal(f.shim.sandboxCount(), 1);
  });

  it("knows a Create and a Delete that were done when they come again", async () => {
    const request = await f.createRequest("c1");
    const { pid } = await f.task({ key: "k1" }).create(request);
    await nextDaemon("k1");
    assert.equal((await f.task({ key: "k1" }).create(request)).pid, pid);
    await assert.rejects(f.task({ key: "k2" }).create(request), /exists already/);
    assert.deepEqual([f.hypervisor.started.length, times("CreateContainer")], [1, 1]);
    await f.task().start({ id: "c1", execId: "" });
    f.relay.agent.end("c1", 9);
    await f.task().wait({ id: "c1", execId: "" });
    const deleted = await f.task({ key: "k3" }).delete({ id: "c1", execId: "" });
    assert.equal(deleted.exitStatus, 9);
    await nextDaemon("k3");
    const again = await f.task({ key: "k3" }).delete({ id: "c1", execId: "" });
    assert.deepEqual([again.exitStatus, again.exitedAt?.seconds], [9, deleted.exitedAt?.seconds]);
    await assert.rejects(f.task({ key: "k4" }).delete({ id: "c1", execId: "" }), /no task/);
  });

  it("answers a Delete that its daemon did not come to, after it had stopped the VM, with the task's end", async () => {
    await running();
    f.relay.agent.end("c1", 37);
    await f.task().wait({ id: "c1", execId: "" });
    await until(() => f.hypervisor.stopped.length === 1);
    await until(() => f.shim.status().every((s) => s.state === "stopped"));
    await nextDaemon("k3");
    const first = await f.task({ key: "k3" }).delete({ id: "c1", execId: "" });
    assert.equal(first.exitStatus, 37);
    await nextDaemon("k3");
    assert.equal((await f.task({ key: "k3" }).delete({ id: "c1", execId: "" })).exitStatus, 37);
    await assert.rejects(f.task({ key: "k4" }).delete({ id: "c1", execId: "" }), /no task/);
  });

  it("does not tell the end of a task of before that had a new one's name", async () => {
    await running();
    f.relay.agent.end("c1", 37);
    await f.task().wait({ id: "c1", execId: "" });
    await until(() => f.shim.status().every((s) => s.state === "stopped"));
    await nextDaemon();
    await running();
    f.relay.agent.end("c1", 38);
    await f.task().wait({ id: "c1", execId: "" });
    assert.equal((await f.task().delete({ id: "c1", execId: "" })).exitStatus, 38);
    await assert.rejects(f.task().delete({ id: "c1", execId: "" }), /no task/);
  });

  it("creates a container of a living pod once, however often it is asked", async () => {
    const annotations = (type: string) => ({
      "io.kubernetes.cri.container-type": type,
      "io.kubernetes.cri.sandbox-id": "pod",
    });
    await f.task().create(await f.createRequest("pod", (s) => ({ ...s, annotations: annotations("sandbox") })));
    const request = await f.createRequest("a", (s) => ({ ...s, annotations: annotations("container") }));
    let answer = (): void => {};
    const asked = new Promise<void>((resolve) => {
      f.relay.agent.on.createContainer = async () => {
        resolve();
        await new Promise<void>((done) => {
          answer = done;
        });
        return {};
      };
    });
    f.relay.taskKeys.add("k1");
    void f.task({ key: "k1" }).create(request);
    await asked;
    await nextDaemon("k1");
    const again = f.task({ key: "k1" }).create(request);
    answer();
    await again;
    assert.deepEqual([times("CreateContainer"), f.hypervisor.started.length], [2, 1]); // the pod's and this one
    // One that nobody waits for any more is taken out of the guest.
    f.relay.taskKeys.add("k2");
    const other = await f.createRequest("b", (s) => ({ ...s, annotations: annotations("container") }));
    void f.task({ key: "k2" }).create(other);
    await until(() => times("CreateContainer") === 3);
    await nextDaemon();
    await until(() => f.relay.agent.calls.includes("RemoveContainer"));
    await assert.rejects(f.task().state({ id: "b", execId: "" }), /no task/);
  });

  it("goes on with a pause", async () => {
    await running();
    await f.task({ key: "k1" }).pause({ id: "c1" });
    await nextDaemon("k1");
    assert.equal(await state(), Status.PAUSED);
    await f.task({ key: "k1" }).pause({ id: "c1" });
    await f.task().resume({ id: "c1" });
    assert.equal(await state(), Status.RUNNING);
  });

  it("tells the end of pods whose VM was a child of the daemon", async () => {
    await f.task().create(
      await f.createRequest("c1", (s) => ({
        ...s,
        annotations: { "io.katacontainers.config.runtime.hypervisor_name": "qemu" },
      })),
    );
    await f.task().start({ id: "c1", execId: "" });
    await nextDaemon();
    assert.equal((await f.task().wait({ id: "c1", execId: "" })).exitStatus, 255);
    await until(() => f.qemu.stopped.length === 1);
  });
});

describe("events that a daemon could not deliver", () => {
  it("are the next one's to deliver, in order", async () => {
    const dir = await mkdtemp(join(tmpdir(), "journal-"));
    const sink = new EventSink(join(dir, "sock"));
    const queue = () =>
      new EventQueue(new EventJournal(join(dir, "events"), sink.path, silentLogger()), silentLogger());
    const push = (to: EventQueue, n: number): Promise<void> =>
      to.push({
        ...{ timestamp: undefined, namespace: "n", topic: "/tasks/oom" },
        event: {
          typeUrl: "containerd.events.TaskOOM",
          value: Buffer.from(TaskOOM.encode({ containerId: String(n) }).finish()),
        },
      });
    try {
      const first = queue();
      for (const n of [1, 2, 3]) await push(first, n);
      first.close();
      assert.deepEqual(await EventJournal.sinks(join(dir, "events")), [sink.path]);
      const second = queue();
      await second.restore();
      await push(second, 4);
      await sink.listen();
      await until(() => sink.events.length === 4);
      assert.deepEqual(
        sink.events.map((e) => e.message.containerId),
        ["1", "2", "3", "4"],
      );
      await second.flush(background());
      second.close();
      const third = queue();
      await third.restore();
      assert.equal(third.length, 0);
      third.close();
    } finally {
      await sink.close();
      await rm(dir, { recursive: true, force: true });
    }
  });
});

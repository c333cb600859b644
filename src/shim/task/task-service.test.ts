import assert from "node:assert/strict";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { rejectsStatus, ShimFixture, until } from "../../../test/fakes/shim.ts";
import { background } from "../../base/call.ts";
import { Metrics as MetricsV1 } from "../../gen/containerd/cgroups/v1/metrics.ts";
import { Metrics as MetricsV2 } from "../../gen/containerd/cgroups/v2/metrics.ts";
import { Status } from "../../gen/containerd/types/task/task.ts";
import { Code, StatusError } from "../../ttrpc/index.ts";

let f: ShimFixture;
beforeEach(async () => {
  f = await ShimFixture.create();
});
afterEach(() => f.close());

const json = (typeUrl: string, value: unknown) => ({ typeUrl, value: Buffer.from(JSON.stringify(value)) });

describe("a container alone (ctr)", () => {
  it("runs from create to delete and takes its VM with it", async () => {
    const task = f.task();
    await f.run();
    const wait = task.wait({ id: "c1", execId: "" });
    f.relay.agent.end("c1", 37);
    assert.equal((await wait).exitStatus, 37);
    const deleted = await task.delete({ id: "c1", execId: "" });
    assert.deepEqual([deleted.pid, deleted.exitStatus], [process.pid, 37]);
    await task.shutdown({ id: "c1", now: false });
    assert.equal(f.hypervisor.stopped.length, 1);
    assert.equal(f.shim.sandboxCount(), 0);
    assert.deepEqual(await readdir(join(f.runDir, "tasks")), []);
  });

  it("reports its events in order", async () => {
    const task = f.task();
    await f.run();
    f.relay.agent.end("c1", 3);
    await task.wait({ id: "c1", execId: "" });
    await task.delete({ id: "c1", execId: "" });
    await until(() => f.sink.events.length === 4);
    assert.deepEqual(f.sink.topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    const exit = f.sink.events[2]?.message;
    assert.deepEqual([exit?.containerId, exit?.id, exit?.exitStatus, exit?.pid], ["c1", "c1", 3, process.pid]);
    assert.equal(f.sink.events[2]?.namespace, "default");
  });

  it("goes through the handshake in kata's order", async () => {
    await f.run();
    const order = ["Check", "CreateSandbox", "GetGuestDetails", "CreateContainer", "StartContainer"];
    assert.deepEqual(
      f.relay.agent.calls.filter((c) => order.includes(c)),
      order,
    );
  });

  it("has its root file system as first storage", async () => {
    await f.run();
    const created = f.relay.agent.created.get("c1");
    const [root] = created?.storages ?? [];
    assert.deepEqual(
      [root?.driver, root?.source, root?.fstype, root?.mountPoint],
      ["kata-remote-tree", f.relay.trees[0]?.tree.treeId, "overlay", "/run/kata-containers/c1/rootfs"],
    );
    assert.equal(created?.OCI?.Root?.Path, "/run/kata-containers/c1/rootfs");
  });

  it("publishes the exit before its VM is stopped", async () => {
    let stop = (): void => {};
    f.hypervisor.beforeStop = () => new Promise((resolve) => (stop = resolve));
    await f.run();
    f.relay.agent.end("c1", 0);
    await until(() => f.sink.topics.includes("/tasks/exit"));
    assert.deepEqual(f.hypervisor.stopped, []);
    stop();
    await until(() => f.hypervisor.stopped.length === 1);
  });

  it("has a state file before its VM is asked for", async () => {
    let states: string[] = [];
    f.hypervisor.beforeCreate = async (request) => {
      const [key] = await readdir(join(f.runDir, "tasks"));
      const path = join(f.runDir, "tasks", key as string, `${request.sandboxId}.json`);
      states = [await readFile(path, "utf8"), ((await stat(path)).mode & 0o777).toString(8)];
    };
    await f.run();
    assert.equal((JSON.parse(states[0] as string) as { id: string }).id, "c1");
    assert.equal(states[1], "600");
  });

  it("tells its status with the time that each stage took", async () => {
    await f.run();
    const [status] = f.shim.status();
    assert.deepEqual(
      [status?.state, status?.instanceId, status?.guestBootId, status?.hypervisor, status?.containerdAddress],
      ["running", "vm-1", "boot-1", "remote", "/address/of/door"],
    );
    assert.deepEqual(status?.containers, [{ id: "c1", state: "running", exitCode: 0, rootfs: "node" }]);
    assert.deepEqual(
      status?.timings.map((t) => t.stage),
      ["created", "address", "connected", "agent", "sandbox", "rootfs", "container"],
    );
  });
});

describe("state, wait and kill", () => {
  it("State follows the life of a container", async () => {
    const task = f.task();
    const state = async (): Promise<number> => (await task.state({ id: "c1", execId: "" })).status;
    await task.create(await f.createRequest("c1"));
    assert.equal(await state(), Status.CREATED);
    await task.start({ id: "c1", execId: "" });
    assert.equal(await state(), Status.RUNNING);
    await task.pause({ id: "c1" });
    assert.equal(await state(), Status.PAUSED);
    await task.resume({ id: "c1" });
    assert.equal(await state(), Status.RUNNING);
    f.relay.agent.end("c1", 4);
    await task.wait({ id: "c1", execId: "" });
    const stopped = await task.state({ id: "c1", execId: "" });
    assert.deepEqual([stopped.status, stopped.exitStatus, stopped.exitedAt !== undefined], [Status.STOPPED, 4, true]);
    await until(() => f.sink.topics.includes("/tasks/exit"));
    assert.deepEqual(f.sink.topics.slice(2), ["/tasks/paused", "/tasks/resumed", "/tasks/exit"]);
  });

  it("every waiter gets the same answer, also after the exit", async () => {
    const task = f.task();
    await f.run();
    const waits = [1, 2, 3].map(() => task.wait({ id: "c1", execId: "" }));
    f.relay.agent.end("c1", 9);
    const answers = [...(await Promise.all(waits)), await task.wait({ id: "c1", execId: "" })];
    assert.deepEqual(
      new Set(answers.map((a) => `${a.exitStatus} ${a.exitedAt?.seconds} ${a.exitedAt?.nanos}`)).size,
      1,
    );
  });

  it("kill of an ended container is success and does not reach the guest", async () => {
    const task = f.task();
    await f.run();
    f.relay.agent.end("c1", 0);
    await task.wait({ id: "c1", execId: "" });
    await task.kill({ id: "c1", execId: "", signal: 9, all: false });
    assert.deepEqual(
      f.relay.agents.size === 0 ? [] : f.relay.agent.signals.filter((s) => s.containerId === "c1" && s.signal !== 9),
      [],
    );
  });

  it("kill with SIGKILL reaches the whole container", async () => {
    await f.run();
    await f.task().kill({ id: "c1", execId: "", signal: 9, all: true });
    assert.equal((await f.task().wait({ id: "c1", execId: "" })).exitStatus, 137);
  });

  it("a killed container whose output nobody takes ends all the same", { timeout: 20_000 }, async () => {
    f.relay.stuckOutput = true;
    await f.run();
    await f.task().kill({ id: "c1", execId: "", signal: 9, all: true });
    assert.equal((await f.task().wait({ id: "c1", execId: "" })).exitStatus, 137);
  });

  it("kill of a container that was not started ends it", async () => {
    const task = f.task();
    await task.create(await f.createRequest("c1"));
    await rejectsStatus(
      task.kill({ id: "c1", execId: "", signal: 10, all: false }),
      Code.failedPrecondition,
      /container c1 cannot get signal 10: it is not started/,
    );
    await task.kill({ id: "c1", execId: "", signal: 9, all: false });
    assert.equal((await task.state({ id: "c1", execId: "" })).status, Status.STOPPED);
    await until(() => f.sink.topics.includes("/tasks/exit"));
  });

  it("delete of a running container kills it", async () => {
    await f.run();
    assert.equal((await f.task().delete({ id: "c1", execId: "" })).exitStatus, 137);
    await until(() => f.hypervisor.stopped.length === 1);
  });

  it("a start that fails leaves a stopped container for whoever waits", async () => {
    const task = f.task();
    await task.create(await f.createRequest("c1"));
    f.relay.agent.on.startContainer = async () => {
      throw new StatusError(Code.notFound, "exec: nope: not found\n\nStack backtrace:\n   0: <unknown>");
    };
    await rejectsStatus(
      task.start({ id: "c1", execId: "" }),
      Code.unknown,
      /^the guest could not start container c1: exec: nope: not found$/,
    );
    assert.equal((await task.wait({ id: "c1", execId: "" })).exitStatus, 255);
    assert.equal((await task.state({ id: "c1", execId: "" })).status, Status.STOPPED);
    await task.delete({ id: "c1", execId: "" });
    await until(() => f.sink.topics.includes("/tasks/delete"));
    assert.deepEqual(f.sink.topics, ["/tasks/create", "/tasks/delete"]);
  });

  it("streams that cannot be opened fail the start and end the process", async () => {
    const task = f.task();
    await task.create({ ...(await f.createRequest("c1")), stdout: "binary:///logger" });
    const { agent } = f.relay;
    await rejectsStatus(task.start({ id: "c1", execId: "" }), Code.unimplemented, /binary:\/\/\/logger/);
    assert.deepEqual(agent.signals[0], { containerId: "c1", execId: "", signal: 9 });
  });
});

describe("other calls", () => {
  it("Connect, Pids and Stats answer in containerd's form", async () => {
    const task = f.task();
    await f.run();
    const connected = await task.connect({ id: "c1" });
    assert.deepEqual([connected.shimPid, connected.taskPid], [process.pid, process.pid]);
    assert.deepEqual(
      (await task.pids({ id: "c1" })).processes.map((p) => p.pid),
      [process.pid],
    );
    const { stats } = await task.stats({ id: "c1" });
    if (stats?.typeUrl === "io.containerd.cgroups.v1.Metrics")
      assert.equal(MetricsV1.decode(stats.value).cpu?.usage?.total, 5_000n);
    else assert.equal(MetricsV2.decode(stats?.value ?? Buffer.alloc(0)).cpu?.usageUsec, 5n);
  });

  it("serves the v3 name too, and no other", async () => {
    await f.run();
    assert.equal((await f.task({ service: "containerd.task.v3.Task" }).connect({ id: "c1" })).shimPid, process.pid);
    await rejectsStatus(
      f.task({ service: "containerd.task.v4.Task" }).connect({ id: "c1" }),
      Code.unimplemented,
      /containerd\.task\.v4\.Task\/Connect/,
    );
  });

  it("Update passes limits on without the node's CPU sets", async () => {
    await f.run();
    let seen: unknown;
    f.relay.agent.on.updateContainer = async ({ resources }) => {
      seen = [resources?.Memory?.Limit, resources?.CPU?.Quota, resources?.CPU?.Cpus];
      return {};
    };
    const resources = json("types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", {
      memory: { limit: 1 << 20 },
      cpu: { quota: 5, cpus: "0-3" },
    });
    await f.task().update({ id: "c1", resources, annotations: {} });
    assert.deepEqual(seen, [1n << 20n, 5n, ""]);
  });

  it("reports a kill for lack of memory", async () => {
    await f.run();
    f.relay.agent.oom("c1");
    await until(() => f.sink.topics.includes("/tasks/oom"));
  });

  for (const method of ["start", "state", "delete", "kill", "wait", "connect", "pids", "stats", "pause"] as const) {
    it(`${method} of an unknown id is NotFound`, async () => {
      await rejectsStatus(
        f.task()[method]({ id: "none", execId: "", signal: 9, all: false }),
        Code.notFound,
        /there is no task none/,
      );
    });
  }

  it("Shutdown of what still exists, or never did, is success", async () => {
    await f.run();
    await f.task().shutdown({ id: "c1", now: false });
    await f.task().shutdown({ id: "none", now: true });
    assert.equal((await f.task().state({ id: "c1", execId: "" })).status, Status.RUNNING);
  });

  it("a checkpoint is refused by name", async () => {
    await rejectsStatus(
      f.task().create({ ...(await f.createRequest("c1")), checkpoint: "/cp" }),
      Code.unimplemented,
      /checkpoint = "\/cp"/,
    );
    await rejectsStatus(
      f.task().checkpoint({ id: "c1", path: "/cp", options: undefined }),
      Code.unimplemented,
      /cannot be checkpointed/,
    );
  });

  it("a path with a NUL byte, or a bundle that is none, is InvalidArgument by its field's name", async () => {
    const request = await f.createRequest("c1");
    for (const [field, value] of [
      ["bundle", `${request.bundle}\0x`],
      ["bundle", "relative"],
      ["stdout", "/o\0"],
    ] as const)
      await rejectsStatus(
        f.task().create({ ...request, [field]: value }),
        Code.invalidArgument,
        new RegExp(`^${field} = `),
      );
    assert.equal(f.shim.sandboxCount(), 0);
  });

  it("a payload that is no message is InvalidArgument", async () => {
    const reply = await f.shim.answer(
      {
        key: "k",
        door: "door",
        connection: 1,
        service: "containerd.task.v2.Task",
        method: "State",
        payload: Buffer.from([0xff]),
        metadata: [],
        timeoutMs: undefined,
      },
      background(),
    );
    assert.deepEqual(reply, { ok: false, code: Code.invalidArgument, message: reply.ok ? "" : reply.message });
  });
});

describe("equal ids", () => {
  it("are refused in one namespace", async () => {
    await f.run();
    await rejectsStatus(
      f.task().create(await f.createRequest("c1")),
      Code.alreadyExists,
      /task c1 exists already in namespace default/,
    );
  });

  it("live side by side in two namespaces and two containerds", async () => {
    await f.run("c1", "one");
    await f.run("c1", "two");
    const other = f.task({ namespace: "one", door: "other" });
    await other.create(await f.createRequest("c1", undefined, "one"));
    assert.equal(f.shim.status().length, 3);
    await f.task({ namespace: "one" }).kill({ id: "c1", execId: "", signal: 9, all: true });
    await f.task({ namespace: "one" }).wait({ id: "c1", execId: "" });
    assert.equal((await f.task({ namespace: "two" }).state({ id: "c1", execId: "" })).status, Status.RUNNING);
    assert.equal((await other.state({ id: "c1", execId: "" })).status, Status.CREATED);
  });

  it("are kept apart by the door's namespace, as containerd 1.6 says none", async () => {
    for (const namespace of ["one", "two"]) {
      const task = f.task({ namespace: "", door: `${namespace}@/containerd.sock` });
      await task.create(await f.createRequest("c1", undefined, namespace));
    }
    assert.deepEqual(
      f.shim.status().map((s) => [s.containerdAddress, s.namespace]),
      [
        ["/containerd.sock", "one"],
        ["/containerd.sock", "two"],
      ],
    );
  });

  it("may be used again as soon as the task is deleted, while the old VM still goes away", async () => {
    let stop = (): void => {};
    f.hypervisor.beforeStop = () => new Promise((resolve) => (stop = resolve));
    await f.run();
    await f.task().delete({ id: "c1", execId: "" });
    await f.run();
    stop();
    await until(() => f.hypervisor.stopped.length === 1);
    f.hypervisor.beforeStop = async () => {};
    assert.equal((await readdir(join(f.runDir, "tasks"))).length, 1);
    assert.equal((await f.task().state({ id: "c1", execId: "" })).status, Status.RUNNING);
  });
});

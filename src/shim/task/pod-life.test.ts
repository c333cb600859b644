import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ShimFixture, until } from "../../../test/fakes/shim.ts";
import { background } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Status } from "../../gen/containerd/types/task/task.ts";
import { Code, StatusError } from "../../ttrpc/index.ts";

let f: ShimFixture;
beforeEach(async () => {
  f = await ShimFixture.create();
});
afterEach(() => f.close());

const CRI = "io.kubernetes.cri.";
const sandboxAnnotations = {
  [`${CRI}container-type`]: "sandbox",
  [`${CRI}sandbox-name`]: "web",
  [`${CRI}sandbox-namespace`]: "shop",
  [`${CRI}sandbox-uid`]: "u-1",
};
const containerAnnotations = { [`${CRI}container-type`]: "container", [`${CRI}sandbox-id`]: "pod" };

/** A pod with two containers, all started. */
async function pod(extra: Record<string, string> = {}): Promise<void> {
  const task = f.task();
  await task.create(await f.createRequest("pod", (s) => ({ ...s, annotations: { ...sandboxAnnotations, ...extra } })));
  await task.start({ id: "pod", execId: "" });
  for (const id of ["a", "b"]) {
    await task.create(await f.createRequest(id, (s) => ({ ...s, annotations: containerAnnotations })));
    await task.start({ id, execId: "" });
  }
}

const exit = async (id: string): Promise<number> => (await f.task().wait({ id, execId: "" })).exitStatus;

describe("a pod of several containers", () => {
  it("is one VM, sized by the sandbox's annotations", async () => {
    await pod({
      [`${CRI}sandbox-cpu-quota`]: "150000",
      [`${CRI}sandbox-cpu-period`]: "100000",
      [`${CRI}sandbox-memory`]: String(300 << 20),
    });
    assert.equal(f.hypervisor.requests.length, 1);
    const [request] = f.hypervisor.requests;
    assert.deepEqual(
      [request?.vcpus, request?.memoryMiB, request?.pod],
      [1.5, 300, { namespace: "shop", name: "web", uid: "u-1" }],
    );
    assert.deepEqual([...f.relay.agent.created.keys()], ["pod", "a", "b"]);
  });

  it("goes on when a container ends, which is taken out of the guest", async () => {
    await pod();
    f.relay.agent.end("a", 1);
    assert.equal(await exit("a"), 1);
    await until(() => !f.relay.agent.created.has("a"));
    assert.equal((await f.task().state({ id: "b", execId: "" })).status, Status.RUNNING);
    await f.task().delete({ id: "a", execId: "" });
    assert.deepEqual(f.hypervisor.stopped, []);
  });

  it("ends as a whole with its sandbox container", async () => {
    await pod();
    await f.task().kill({ id: "pod", execId: "", signal: 9, all: true });
    assert.deepEqual(await Promise.all([exit("pod"), exit("a"), exit("b")]), [137, 137, 137]);
    await until(() => f.hypervisor.stopped.length === 1);
    for (const id of ["a", "b", "pod"]) await f.task().delete({ id, execId: "" });
    await until(() => f.shim.sandboxCount() === 0);
  });

  it("refuses a container whose pod does not run", async () => {
    const request = await f.createRequest("a", (s) => ({ ...s, annotations: containerAnnotations }));
    await assert.rejects(
      f.task().create(request),
      (e: unknown) =>
        e instanceof StatusError &&
        e.code === Code.notFound &&
        /the pod of container a, pod, does not run here/.test(e.message),
    );
  });

  it("undoes a container that could not be created and lives on", async () => {
    await pod();
    f.relay.agent.on.createContainer = async () => {
      throw new StatusError(Code.internal, "runtime says no");
    };
    const request = await f.createRequest("x", (s) => ({ ...s, annotations: containerAnnotations }));
    await assert.rejects(f.task().create(request), /the guest could not create container x: runtime says no/);
    assert.equal(f.relay.agent.calls.at(-1), "RemoveContainer");
    delete f.relay.agent.on.createContainer;
    await f.task().create(request);
  });

  it("writes a container's termination message to the node before its exit is known", async () => {
    await pod();
    const file = join(f.dir, "pods", "uid", "containers", "x", "1a2b3c4d");
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, "");
    f.relay.agent.terminationLog = "out of cheese";
    const mounts = [{ destination: "/dev/termination-log", type: "bind", source: file, options: ["rbind"] }];
    await f.task().create(await f.createRequest("x", (s) => ({ ...s, annotations: containerAnnotations, mounts })));
    // The agent finds the file by it, though containerd has not passed it on.
    const said = f.relay.agent.created.get("x")?.OCI?.Annotations["io.kubernetes.container.terminationMessagePath"];
    assert.equal(said, "/dev/termination-log");
    await f.task().start({ id: "x", execId: "" });
    f.relay.agent.end("x", 1);
    await exit("x");
    assert.equal(await readFile(file, "utf8"), "out of cheese");
  });

  it("copies its mounts into the guest before the container is created", async () => {
    const hosts = join(f.dir, "hosts");
    await writeFile(hosts, "127.0.0.1 localhost\n");
    const mounts = [{ destination: "/etc/hosts", type: "bind", source: hosts, options: ["rbind", "ro"] }];
    await f.task().create(await f.createRequest("c1", (s) => ({ ...s, mounts })));
    const [mount] = f.relay.agent.created.get("c1")?.OCI?.Mounts ?? [];
    assert.match(mount?.source ?? "", /^\/run\/kata-containers\/shared\/containers\/c1-[0-9a-f]{16}-hosts$/);
    assert.equal(f.relay.agent.files.get(mount?.source ?? "")?.data.toString(), "127.0.0.1 localhost\n");
    assert.ok(f.relay.agent.calls.indexOf("CopyFile") < f.relay.agent.calls.indexOf("CreateContainer"));
  });

  it("takes its backend and policy from annotations", async () => {
    const policy = "package agent_policy\ndefault AllowRequestsFailingPolicy := true\n";
    await pod({
      "io.katacontainers.config.runtime.hypervisor_name": "qemu",
      "io.katacontainers.config.agent.policy": Buffer.from(policy).toString("base64"),
    });
    assert.deepEqual([f.hypervisor.requests.length, f.qemu.requests.length], [0, 1]);
    const order = ["Check", "SetPolicy", "CreateSandbox"];
    assert.deepEqual(
      f.relay.agent.calls.filter((c) => order.includes(c)),
      order,
    );
    assert.deepEqual(f.shim.liveSandboxes("remote"), []);
    assert.equal(f.shim.liveSandboxes("qemu").length, 1);
  });
});

describe("a pod VM that is lost", () => {
  it("ends every process with 255, each reported once, then is cleaned up", async () => {
    await pod();
    const [sandbox] = f.shim.liveSandboxes();
    assert.ok(sandbox);
    f.shim.onVmLoss({ sandboxId: sandbox, reason: "spot reclaim" });
    assert.deepEqual(await Promise.all([exit("pod"), exit("a"), exit("b")]), [255, 255, 255]);
    await until(() => f.hypervisor.stopped.length === 1);
    await until(() => f.sink.topics.filter((t) => t === "/tasks/exit").length === 3);
    for (const id of ["pod", "a", "b"]) assert.equal((await f.task().delete({ id, execId: "" })).exitStatus, 255);
    await until(() => f.shim.sandboxCount() === 0);
    assert.equal(f.sink.topics.filter((t) => t === "/tasks/exit").length, 3);
  });

  it("is noticed by its connection too", async () => {
    await pod();
    const [sandbox] = f.shim.liveSandboxes();
    assert.ok(sandbox);
    f.relay.declareLost(sandbox, "no connection for 60 s");
    assert.equal(await exit("a"), 255);
    await until(() => f.hypervisor.stopped[0]?.reason === "no connection for 60 s");
  });

  it("fails what is on its way with the reason", async () => {
    await pod();
    const [sandbox] = f.shim.liveSandboxes();
    assert.ok(sandbox);
    f.relay.agent.on.pauseContainer = () => new Promise(() => {});
    const pause = f.task().pause({ id: "a" });
    setImmediate(() => f.shim.onVmLoss({ sandboxId: sandbox, reason: "QEMU crashed" }));
    await assert.rejects(
      pause,
      (e: unknown) => e instanceof StatusError && e.code === Code.unavailable && /QEMU crashed/.test(e.message),
    );
  });

  it("ends a process that was running in a container, with 255", async () => {
    await pod();
    const [sandbox] = f.shim.liveSandboxes();
    assert.ok(sandbox);
    const spec = {
      typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process",
      value: Buffer.from(JSON.stringify({ args: ["ls"], cwd: "/" })),
    };
    await f.task().exec({ id: "a", execId: "e", terminal: false, stdin: "", stdout: "", stderr: "", spec });
    await f.task().start({ id: "a", execId: "e" });
    f.shim.onVmLoss({ sandboxId: sandbox, reason: "gone" });
    assert.equal((await f.task().wait({ id: "a", execId: "e" })).exitStatus, 255);
  });
});

describe("the mark of a task, by which the launcher knows what to clean up", () => {
  const marks = async (): Promise<number> => (await readdir(join(f.runDir, "tasks"))).length;

  it("is there from its creation to its deletion", async () => {
    let during = 0;
    f.hypervisor.beforeCreate = async () => {
      during = await marks();
    };
    await pod();
    assert.deepEqual([during, await marks()], [1, 3]);
    await f.task().delete({ id: "a", execId: "" });
    assert.equal(await marks(), 2);
    for (const id of ["b", "pod"]) await f.task().delete({ id, execId: "" });
    await until(() => f.shim.sandboxCount() === 0);
    assert.equal(await marks(), 0);
  });

  it("goes with a creation that failed", async () => {
    await assert.rejects(f.task().create({ ...(await f.createRequest("c1")), bundle: "/none" }));
    assert.equal(await marks(), 0);
  });
});

describe("clean-up", () => {
  it("by containerd of a pod that lives ends it without events of its own", async () => {
    await pod();
    await until(() => f.sink.events.length === 6);
    const result = await f.shim.cleanup("/address/of/door", "default", "pod", background());
    assert.equal(result.exitStatus, 137);
    assert.equal(f.hypervisor.stopped.length, 1);
    await until(() => f.sink.events.length === 8);
    assert.deepEqual(
      f.sink.events.slice(6).map((e) => `${e.topic} ${e.message.containerId}`),
      ["/tasks/exit a", "/tasks/exit b"],
    );
    await assert.rejects(f.task().state({ id: "pod", execId: "" }));
  });

  it("of one container leaves the pod alone", async () => {
    await pod();
    await f.shim.cleanup("/address/of/door", "default", "a", background());
    assert.deepEqual([...f.relay.agent.created.keys()], ["pod", "b"]);
    assert.deepEqual(f.hypervisor.stopped, []);
  });

  it("of an id that nothing is known of is success", async () => {
    assert.equal((await f.shim.cleanup("/address/of/door", "default", "none", background())).exitStatus, 137);
  });

  it("during a creation ends that", async () => {
    let entered = (): void => {};
    const started = new Promise<void>((resolve) => (entered = resolve));
    f.hypervisor.beforeStart = async (_id, call) => {
      entered();
      await new Promise((_, reject) => call.signal.addEventListener("abort", () => reject(call.signal.reason)));
    };
    const creation = f.task().create(await f.createRequest("c1"));
    creation.catch(() => undefined);
    await started;
    await f.shim.cleanup("/address/of/door", "default", "c1", background());
    await assert.rejects(creation, /containerd asked to clean up task c1/);
    await until(() => f.hypervisor.stopped.length === 1);
  });
});

describe("the next daemon", () => {
  it("stops exactly the VMs that a killed one left", async () => {
    await pod();
    const killed = f.shim.liveSandboxes();
    f.newShim();
    await f.shim.recover(background());
    assert.deepEqual(
      f.hypervisor.stopped.map((s) => s.id),
      killed,
    );
    assert.deepEqual(await readdir(join(f.runDir, "tasks")), []);
    assert.equal(f.shim.sandboxCount(), 0);
  });

  it("goes on trying while the backend is away", async () => {
    await pod();
    let away = true;
    f.hypervisor.beforeStop = async () => {
      if (away) throw new Fault("unavailable", "no adaptor");
    };
    f.newShim();
    await f.shim.recover(background());
    assert.deepEqual([f.shim.sandboxCount(), f.hypervisor.stopped.length], [1, 0]);
    away = false;
    await until(() => f.hypervisor.stopped.length === 1);
    await until(() => f.shim.sandboxCount() === 0);
  });

  it("is not stopped by a state file that it cannot read", async () => {
    await pod();
    await mkdir(join(f.runDir, "tasks", "x"), { recursive: true });
    await writeFile(join(f.runDir, "tasks", "x", "y.json"), "{");
    f.newShim();
    await f.shim.recover(background());
    assert.equal(f.hypervisor.stopped.length, 1);
    assert.deepEqual(await readdir(join(f.runDir, "tasks")), ["x"]);
  });

  it("cleans up a container that only its state file tells of", async () => {
    await pod();
    f.newShim();
    await f.shim.cleanup("/address/of/door", "default", "a", background());
    assert.deepEqual(f.hypervisor.stopped, []);
    await f.shim.cleanup("/address/of/door", "default", "pod", background());
    assert.equal(f.hypervisor.stopped.length, 1);
  });
});

describe("the end of the daemon", () => {
  it("ends its pods and delivers their events", async () => {
    await pod();
    await f.shim.close("SIGTERM");
    assert.equal(f.hypervisor.stopped.length, 1);
    assert.equal(f.sink.topics.filter((t) => t === "/tasks/exit").length, 3);
  });
});

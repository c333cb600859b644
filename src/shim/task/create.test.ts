import assert from "node:assert/strict";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { baseSpec, rejectsStatus, ShimFixture, until } from "../../../test/fakes/shim.ts";
import { Fault } from "../../base/fault.ts";
import { Code, StatusError } from "../../ttrpc/index.ts";

let f: ShimFixture;
beforeEach(async () => {
  f = await ShimFixture.create();
});
afterEach(() => f.close());

describe("a creation that fails", () => {
  const gone = async (): Promise<void> => {
    await until(() => f.shim.sandboxCount() === 0);
    assert.deepEqual(
      f.hypervisor.stopped.map((s) => s.id),
      f.hypervisor.requests.map((r) => r.sandboxId),
    );
    assert.deepEqual(await readdir(join(f.runDir, "tasks")), []);
    await f.run("next");
  };

  it("in startVm: names the backend's reason, leaves nothing, the next works", async () => {
    f.hypervisor.beforeStart = async () => {
      f.hypervisor.beforeStart = async () => {};
      throw new Fault("resource_exhausted", "no capacity in zone a: 0 of 4 m6a.large");
    };
    await rejectsStatus(
      f.task().create(await f.createRequest("c1")),
      Code.resourceExhausted,
      /cannot start the pod VM .*: no capacity in zone a/,
    );
    await gone();
  });

  it("because the VM never comes up: names the instance and where to look", async () => {
    f.newShim({ connectTimeoutMs: 1_000 });
    f.relay.beforeConnect = async (_spec, call) => {
      f.relay.beforeConnect = async () => {};
      await new Promise((_, reject) => call.signal.addEventListener("abort", () => reject(call.signal.reason)));
    };
    await rejectsStatus(
      f.task().create(await f.createRequest("c1")),
      Code.deadlineExceeded,
      /cannot reach the agent of pod VM vm-1 at 192\.0\.2\.1 port 15150 \(last stage: address; see: kata-remote console /,
    );
    await gone();
  });

  it("because the VM ends while it boots: does not wait for the deadline", async () => {
    f.relay.beforeConnect = async (spec, call) => {
      f.relay.beforeConnect = async () => {};
      setImmediate(() => f.shim.onVmLoss({ sandboxId: spec.sandboxId, reason: "QEMU ended with signal 9" }));
      await new Promise((_, reject) => call.signal.addEventListener("abort", () => reject(call.signal.reason)));
    };
    await rejectsStatus(f.task().create(await f.createRequest("c1")), Code.unavailable, /QEMU ended with signal 9/);
    await gone();
  });

  it("in CreateContainer of the agent", async () => {
    const newAgent = f.relay.newAgent;
    f.relay.newAgent = () => {
      const agent = newAgent();
      agent.on.createContainer = async () => {
        throw new StatusError(Code.internal, "No space left on device (os error 28)");
      };
      f.relay.newAgent = newAgent;
      return agent;
    };
    await rejectsStatus(
      f.task().create(await f.createRequest("c1")),
      Code.unknown,
      /the guest could not create container c1: No space left/,
    );
    await gone();
  });

  it("because the root file system does not arrive", async () => {
    f.relay.beforeSendTree = async () => {
      f.relay.beforeSendTree = async () => {};
      throw new Fault("resource_exhausted", "the guest's disk is full: 0 of 4096 MiB left");
    };
    await rejectsStatus(
      f.task().create(await f.createRequest("c1")),
      Code.resourceExhausted,
      /root file system of container c1 did not reach its pod VM: the guest's disk is full/,
    );
    await gone();
  });

  it("because the caller went away", async () => {
    const caller = new AbortController();
    f.hypervisor.beforeStart = async (_id, call) => {
      f.hypervisor.beforeStart = async () => {};
      caller.abort();
      call.signal.throwIfAborted();
    };
    await assert.rejects(f.task({ call: { signal: caller.signal } }).create(await f.createRequest("c1")));
    await gone();
  });

  it("because the backend does not exist", async () => {
    const annotations = { "io.katacontainers.config.runtime.hypervisor_name": "xen" };
    await rejectsStatus(
      f.task().create(await f.createRequest("c1", (s) => ({ ...s, annotations }))),
      Code.invalidArgument,
      /hypervisor_name = "xen" is not valid: "remote" or "qemu" or/,
    );
    assert.deepEqual(f.hypervisor.requests, []);
  });

  it("keeps the StopVM that could not be sent, and sends it later", async () => {
    f.hypervisor.beforeStart = async () => {
      throw new Fault("internal", "no");
    };
    let tries = 0;
    f.hypervisor.beforeStop = async () => {
      if (++tries < 2) throw new Fault("unavailable", "the adaptor is away");
    };
    await assert.rejects(f.task().create(await f.createRequest("c1")));
    await until(() => tries === 1);
    assert.equal(f.shim.sandboxCount() > 0, true);
    await until(() => f.shim.sandboxCount() === 0);
    assert.equal(f.hypervisor.stopped.length, 1);
    assert.deepEqual(await readdir(join(f.runDir, "tasks")), []);
  });
});

describe("bad input", () => {
  const refused = async (
    spec: (s: Record<string, unknown>) => unknown,
    code: number,
    message: RegExp,
  ): Promise<void> => {
    await rejectsStatus(f.task().create(await f.createRequest("c1", spec)), code, message);
    assert.deepEqual(f.hypervisor.requests, []);
  };

  it("an id that is none", async () => {
    await rejectsStatus(
      f.task().create({ ...(await f.createRequest("ok")), id: "../x" }),
      Code.invalidArgument,
      /container id "\.\.\/x" is not valid/,
    );
  });

  it("config.json that is missing, no JSON, or wrong", async () => {
    const request = await f.createRequest("c1");
    await rejectsStatus(
      f.task().create({ ...request, bundle: join(f.dir, "none") }),
      Code.invalidArgument,
      /none\/config\.json cannot be read/,
    );
    await writeFile(join(request.bundle, "config.json"), "{]");
    await rejectsStatus(f.task().create(request), Code.invalidArgument, /config\.json is not JSON/);
    await writeFile(join(request.bundle, "config.json"), JSON.stringify({ ...baseSpec(), process: { args: ["sh"] } }));
    await rejectsStatus(
      f.task().create(request),
      Code.invalidArgument,
      /config\.json: process must have required properties cwd/,
    );
  });

  it("runtime options of an unknown type", async () => {
    const request = {
      ...(await f.createRequest("c1")),
      options: { typeUrl: "some.other.Options", value: Buffer.alloc(0) },
    };
    await rejectsStatus(
      f.task().create(request),
      Code.invalidArgument,
      /runtime options of type "some\.other\.Options" are not known/,
    );
    await f
      .task()
      .create({ ...request, options: { typeUrl: "containerd.runc.v1.Options", value: Buffer.from([8, 1]) } });
  });

  it("host namespaces", () =>
    refused(
      (s) => ({ ...s, linux: { namespaces: [{ type: "mount" }, { type: "uts" }] } }),
      Code.failedPrecondition,
      /no "network" entry \(hostNetwork.*no "pid" entry \(hostPID.*no "ipc" entry \(hostIPC/,
    ));

  it("an empty root file system", async () => {
    await mkdir(join(f.dir, "empty"));
    await refused(
      (s) => ({ ...s, root: { path: join(f.dir, "empty") } }),
      Code.invalidArgument,
      /root\.path = ".*empty": .* is empty/,
    );
  });

  it("a wrong annotation value", () =>
    refused(
      (s) => ({ ...s, annotations: { "io.katacontainers.config.hypervisor.default_vcpus": "many" } }),
      Code.invalidArgument,
      /default_vcpus = "many" is not valid: a number of virtual CPUs/,
    ));
});

import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { hypervisorConformance, vmRequest } from "../../../test/conformance/hypervisor.ts";
import { StubAdaptor, until } from "../../../test/support/stub-adaptor.ts";
import { withDeadline } from "../../base/call.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import { newSandboxId } from "../../base/ids.ts";
import { silentLogger } from "../../base/log.ts";
import { CertificateAuthority } from "../../identity/index.ts";
import type { VmLoss } from "./hypervisor.ts";
import { RemoteHypervisor } from "./remote.ts";

async function world() {
  const dir = await mkdtemp(join(tmpdir(), "remote-"));
  const address = `unix://${join(dir, "adaptor.sock")}`;
  const adaptor = new StubAdaptor(address, await CertificateAuthority.open(join(dir, "ca")));
  await adaptor.start();
  const open = (): Promise<RemoteHypervisor> =>
    RemoteHypervisor.open({
      ...{ address, nodeId: "node-1", bootId: "boot-1", patienceMs: 5_000 },
      stateDir: join(dir, "state"),
      runDir: join(dir, "run"),
      log: silentLogger(),
    });
  const hypervisor = await open();
  return {
    ...{ dir, adaptor, hypervisor, open },
    pending: () => readdir(join(dir, "run", "pending-stops")),
    [Symbol.asyncDispose]: async () => {
      await hypervisor.close();
      await adaptor.kill();
      await rm(dir, { recursive: true });
    },
  };
}

const call = () => withDeadline(10_000);

hypervisorConformance("remote", async () => {
  const w = await world();
  const over = new AbortController();
  return {
    hypervisor: w.hypervisor,
    exists: async (id) => w.adaptor.vms.has(id),
    boot: async () => undefined, // the stub sees no console
    crash: async (id) => {
      await until(() => w.adaptor.watchers > 0);
      w.adaptor.lose(id, "spot instance reclaimed");
    },
    [Symbol.asyncDispose]: async () => {
      over.abort();
      await w[Symbol.asyncDispose]();
    },
  };
});

describe("remote hypervisor while the adaptor restarts", () => {
  it("joins a start again and gets its address", async () => {
    await using w = await world();
    const request = vmRequest();
    const hold = deferred<void>();
    w.adaptor.held.set(request.sandboxId, hold);
    await w.hypervisor.createVm(request, call());
    const start = w.hypervisor.startVm(request.sandboxId, call());
    await until(() => w.adaptor.calls.includes("startVm"));
    await w.adaptor.kill();
    hold.resolve();
    await w.adaptor.start();
    assert.deepEqual(await start, { instanceId: `i-${request.sandboxId}`, addresses: ["192.0.2.1"], port: 15150 });
    assert.ok(w.adaptor.calls.filter((name) => name === "startVm").length >= 2);
  });

  it("waits for it before it creates, and names it when it does not come back", async () => {
    await using w = await world();
    await w.adaptor.kill();
    const request = vmRequest();
    await assert.rejects(w.hypervisor.createVm(request, withDeadline(500)), (e: Fault) => {
      assert.equal(e.code, "unavailable");
      assert.match(e.message, /CreateVm at unix:.*adaptor\.sock did not succeed in time: is the adaptor running/);
      return true;
    });
    const create = w.hypervisor.createVm(request, call());
    await w.adaptor.start();
    await create;
    assert.ok(w.adaptor.vms.has(request.sandboxId));
  });

  it("keeps a stop that cannot be delivered and delivers it later", async () => {
    await using w = await world();
    const request = vmRequest();
    await w.hypervisor.createVm(request, call());
    await w.adaptor.kill();
    await w.hypervisor.stopVm(request.sandboxId, "pod ended", withDeadline(300));
    assert.deepEqual(await w.pending(), [`${request.sandboxId}.json`]);
    await w.adaptor.start();
    await until(() => !w.adaptor.vms.has(request.sandboxId));
    while ((await w.pending()).length > 0) await new Promise((r) => setTimeout(r, 5));
  });

  it("removes what a daemon that was killed in the middle of a write has left", async () => {
    await using w = await world();
    const dir = join(w.dir, "run", "pending-stops");
    await writeFile(join(dir, `${newSandboxId()}.json.0123abcd.tmp`), "{");
    const next = await w.open();
    assert.deepEqual(await w.pending(), []);
    await next.close();
  });

  it("leaves an undelivered stop to the next daemon", async () => {
    await using w = await world();
    const request = vmRequest();
    await w.hypervisor.createVm(request, call());
    await w.adaptor.kill();
    await w.hypervisor.stopVm(request.sandboxId, "pod ended", withDeadline(300));
    await w.hypervisor.close();
    await w.adaptor.start();
    assert.ok(w.adaptor.vms.has(request.sandboxId));
    const next = await w.open();
    await until(() => !w.adaptor.vms.has(request.sandboxId));
    await next.close();
  });

  it("names its sandboxes again, and hears of VMs lost meanwhile", async () => {
    await using w = await world();
    const [stays, lost] = [vmRequest(), vmRequest()];
    for (const request of [stays, lost]) await w.hypervisor.createVm(request, call());
    const over = new AbortController();
    const losses: VmLoss[] = [];
    const watching = w.hypervisor.watch((loss) => losses.push(loss), { signal: over.signal });
    await until(() => w.adaptor.synced.length === 1);
    await w.adaptor.kill();
    w.adaptor.vms.delete(lost.sandboxId);
    w.adaptor.vms.set(newSandboxId(), { started: true, pinned: undefined }); // nobody's
    await w.adaptor.start();
    await until(() => losses.length > 0);
    assert.deepEqual(
      losses.map((loss) => loss.sandboxId),
      [lost.sandboxId],
    );
    assert.deepEqual(w.adaptor.synced.at(-1), [stays.sandboxId, lost.sandboxId].sort());
    assert.deepEqual([...w.adaptor.vms.keys()], [stays.sandboxId]);
    over.abort();
    await watching;
  });

  it("asks for a certificate again: the CA may be another", async () => {
    await using w = await world();
    await w.hypervisor.clientIdentity(call());
    await w.hypervisor.clientIdentity(call());
    assert.equal(w.adaptor.calls.filter((name) => name === "enrollNode").length, 1);
    await w.hypervisor.sync([], call());
    await w.hypervisor.clientIdentity(call());
    assert.equal(w.adaptor.calls.filter((name) => name === "enrollNode").length, 2);
    assert.equal((await stat(join(w.dir, "state", "node.key"))).mode & 0o777, 0o600);
  });
});

describe("remote hypervisor", () => {
  it("passes the adaptor's reason on and does not retry it", async () => {
    await using w = await world();
    const request = vmRequest();
    w.adaptor.failing.set(request.sandboxId, new Fault("resource_exhausted", "no m6a.large left in eu-west-1a"));
    await w.hypervisor.createVm(request, call());
    await assert.rejects(w.hypervisor.startVm(request.sandboxId, call()), {
      code: "resource_exhausted",
      message: "no m6a.large left in eu-west-1a",
    });
    assert.equal(w.adaptor.calls.filter((name) => name === "startVm").length, 1);
  });

  it("says why there was no VM when its own time runs out first", async () => {
    await using w = await world();
    const request = vmRequest();
    const over = deferred<void>();
    w.adaptor.waiting.set(request.sandboxId, new Fault("resource_exhausted", "no room in eu-west-1a, 1b and 1c"));
    w.adaptor.held.set(request.sandboxId, over);
    await w.hypervisor.createVm(request, call());
    const failed = await w.hypervisor.startVm(request.sandboxId, withDeadline(300)).catch((e: unknown) => e);
    assert.ok(failed instanceof Fault && failed.code === "deadline_exceeded");
    assert.equal(failed.fullMessage, "the pod VM had no address in time: no room in eu-west-1a, 1b and 1c");
    over.resolve();
  });

  it("takes no word of the adaptor's for a broken stream, not even cancelled", async () => {
    await using w = await world();
    const request = vmRequest();
    w.adaptor.failing.set(request.sandboxId, new Fault("cancelled", "the sandbox was stopped"));
    await w.hypervisor.createVm(request, call());
    await assert.rejects(w.hypervisor.startVm(request.sandboxId, call()), {
      code: "cancelled",
      message: "the sandbox was stopped",
    });
  });

  it("names what lives in every report of a new daemon, the first one included", async () => {
    await using w = await world();
    const request = vmRequest(newSandboxId());
    await w.hypervisor.createVm(request, call());
    await w.hypervisor.startVm(request.sandboxId, call());
    await w.hypervisor.close(); // the pod lives on, a relay holds it
    const next = await w.open();
    const over = new AbortController();
    try {
      // As the node daemon does: neither waits for the other.
      const synced = next.sync([request.sandboxId], call());
      const watched = next.watch(() => undefined, { signal: over.signal });
      await synced;
      await until(() => w.adaptor.synced.length >= 2);
      assert.ok(w.adaptor.vms.has(request.sandboxId));
      for (const report of w.adaptor.synced) assert.deepEqual(report, [request.sandboxId]);
      over.abort();
      await watched;
    } finally {
      over.abort();
      await next.close();
    }
  });

  it("never lets a sync overtake a create", async () => {
    await using w = await world();
    for (let n = 0; n < 20; n++) {
      const request = vmRequest();
      const sync = w.hypervisor.sync([], call());
      await Promise.all([w.hypervisor.createVm(request, call()), sync, w.hypervisor.sync([], call())]);
      assert.ok(w.adaptor.vms.has(request.sandboxId));
    }
  });

  it("refuses TCP without TLS", async () => {
    await using w = await world();
    const options = { nodeId: "n", bootId: "b", patienceMs: 1000, log: silentLogger(), stateDir: w.dir, runDir: w.dir };
    await assert.rejects(RemoteHypervisor.open({ ...options, address: "192.0.2.1:8443" }), {
      code: "invalid_argument",
    });
  });
});

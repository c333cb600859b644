import assert from "node:assert/strict";
import { rm, stat } from "node:fs/promises";
import { request } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { AdaptorUnderTest, call } from "../../test/fakes/adaptor-under-test.ts";
import { newOperationId, newSandboxId } from "../base/ids.ts";
import { PodVmDefinition, StartVmEvent_Stage as Stage } from "../gen/kataremote/podvm/v1/podvm.ts";
import { createClient } from "../grpc/index.ts";
import { CertificateAuthority, makeCsr, newKeyPair } from "../identity/index.ts";

/** One request over a unix socket. */
function ask(socketPath: string, method: string, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path }, async (answer) => {
      let body = "";
      for await (const part of answer.setEncoding("utf8")) body += String(part);
      resolve({ status: answer.statusCode ?? 0, body });
    });
    outgoing.on("error", reject).end();
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

describe("REST", { timeout: 60_000 }, () => {
  it("shows health, sandboxes, instances, operations, consoles and metrics", async () => {
    await using tested = await AdaptorUnderTest.open();
    const id = await tested.createVm();
    const last = (await tested.startVm(id)).at(-1);
    assert.deepEqual(
      [(await fetch(`${tested.rest}/healthz`)).status, (await fetch(`${tested.rest}/readyz`)).status],
      [200, 200],
    );
    const { sandboxes } = await tested.json<{ sandboxes: { id: string; phase: string }[] }>("/v1/sandboxes");
    assert.deepEqual(
      sandboxes.map((s) => [s.id, s.phase]),
      [[id, "booting"]],
    );
    const { instances } = await tested.json<{ instances: { id: string; state: string }[] }>("/v1/instances");
    assert.deepEqual(
      instances.map((i) => [i.id, i.state]),
      [[last?.instanceId, "running"]],
    );
    const { operations } = await tested.json<{ operations: { id: string }[] }>("/v1/operations");
    assert.deepEqual(
      operations.map((o) => o.id),
      [last?.operationId],
    );
    tested.provider.knobs.console = "hello from the console";
    const console = await fetch(`${tested.rest}/v1/instances/${last?.instanceId}/console?maxBytes=7`);
    assert.equal(await console.text(), "console");
    await tested.until(async () => {
      const metrics = await (await fetch(`${tested.rest}/metrics`)).text();
      return (
        metrics.includes('kata_remote_sandboxes{phase="booting"} 1') &&
        metrics.includes('kata_remote_operation_seconds_count{kind="start-vm",outcome="done"} 1')
      );
    }, "metrics count it");
  });

  it("says what is wrong as problem+json", async () => {
    await using tested = await AdaptorUnderTest.open();
    const unknown = newSandboxId();
    const wrong: [string, number, RegExp][] = [
      [`/v1/sandboxes/${unknown}`, 404, /sandbox .* is unknown/],
      ["/v1/sandboxes/abc", 400, /"abc" is not a sandbox id/],
      ["/v1/operations/op-1", 404, /operation op-1 is unknown/],
      ["/v1/operations?limit=x", 400, /limit/],
      ["/v1/instances/zero-1/console", 404, /instance zero-1 is unknown/],
      ["/nowhere", 404, /GET \/nowhere/],
    ];
    for (const [path, status, detail] of wrong) {
      const answer = await fetch(`${tested.rest}${path}`);
      assert.equal(answer.status, status, path);
      assert.match(answer.headers.get("content-type") ?? "", /^application\/problem\+json/);
      assert.match(((await answer.json()) as { detail: string }).detail, detail);
    }
  });

  it("deletes instances that no sandbox owns, on its unix socket only", async () => {
    const options = { config: { reconcile: { intervalMs: 600_000 } } };
    await using open = await AdaptorUnderTest.open(options);
    const refused = await fetch(`${open.rest}/v1/instances/zero-1`, { method: "DELETE" });
    assert.equal(refused.status, 403);

    await using tested = await AdaptorUnderTest.open({
      config: { ...options.config, rest: { socketPath: join(open.dir, "rest.sock") } },
    });
    const socketPath = tested.config.rest.socketPath ?? "";
    assert.equal((await stat(socketPath)).mode & 0o777, 0o600);
    const tags = {
      cluster: "test",
      owner: "kata-remote",
      createOperation: newOperationId(),
      created: new Date(0).toISOString(),
    } as const;
    const spec = {
      name: "podvm-old",
      tags,
      sandboxId: newSandboxId(),
      vcpus: 1,
      memoryMiB: 128,
      gpus: 0,
      userData: Buffer.from(""),
    };
    const orphan = await tested.provider.createInstance(spec, call());
    const id = await tested.createVm();
    const owned = (await tested.startVm(id)).at(-1)?.instanceId;
    const kept = await ask(socketPath, "DELETE", `/v1/instances/${owned}`);
    assert.equal(kept.status, 412);
    assert.match(kept.body, new RegExp(`belongs to sandbox ${id}`));
    assert.equal((await ask(socketPath, "DELETE", `/v1/instances/${orphan.id}`)).status, 202);
    await tested.until(async () => (await tested.instances()).join() === owned, "only the owned one is left");
  });
});

describe("gRPC over the network", { timeout: 60_000 }, () => {
  it("serves nodes with a certificate, each for itself", async () => {
    const port = await freePort();
    const listen = { host: "127.0.0.1", port, serverNames: ["adaptor.example", "127.0.0.1"] };
    await using tested = await AdaptorUnderTest.open({ config: { grpc: { listen } } });
    const { keyPem } = newKeyPair();
    const csrPem = makeCsr(keyPem, "");
    const { certificatePem, caPem } = await tested.client.enrollNode({ nodeId: "node-1", csrPem }, call());
    const address = `127.0.0.1:${port}`;
    const node = createClient(PodVmDefinition, { address, tls: { caPem, certificatePem, keyPem } });
    await node.createVm({ sandboxId: newSandboxId(), nodeId: "node-1" }, call());
    await node.enrollNode({ nodeId: "node-1", csrPem }, call());
    const foreign = await tested.createVm({ nodeId: "node-2" });
    for (const refused of [
      node.createVm({ sandboxId: newSandboxId(), nodeId: "node-2" }, call()),
      node.createVm({ sandboxId: foreign, nodeId: "node-1" }, call()),
      node.stopVm({ sandboxId: foreign }, call()),
      node.syncNode({ nodeId: "node-2", bootId: "b" }, call()),
      node.enrollNode({ nodeId: "node-2", csrPem }, call()),
      node.signGuest({ sandboxId: foreign, csrPem }, call()),
      node.watchVm({ nodeId: "node-2" }, call())[Symbol.asyncIterator]().next(),
    ]) {
      await assert.rejects(refused, { code: "permission_denied" });
    }
    node.close();

    const otherCa = await CertificateAuthority.open(join(tested.dir, "other-ca"));
    const tls = { caPem, certificatePem: await otherCa.signNode(csrPem, "node-1"), keyPem };
    const stranger = createClient(PodVmDefinition, { address, tls });
    await assert.rejects(stranger.version({}, call(5000)), { code: "unavailable" });
    stranger.close();
    const guestPem = await (await CertificateAuthority.open(join(tested.dir, "ca"))).signGuest(csrPem, newSandboxId());
    const guest = createClient(PodVmDefinition, { address, tls: { caPem, certificatePem: guestPem, keyPem } });
    await assert.rejects(guest.version({}, call(5000)), { code: "unavailable" });
    guest.close();
  });
});

describe("an adaptor that is restarted", { timeout: 60_000 }, () => {
  it("knows its sandboxes, and running VMs do not notice", async () => {
    await using tested = await AdaptorUnderTest.open();
    const ready = await tested.createVm();
    const instance = (await tested.startVm(ready)).at(-1)?.instanceId;
    await tested.client.reportReady({ sandboxId: ready }, call());
    const prepared = await tested.createVm();
    await tested.restart();
    assert.deepEqual(await tested.instances(), [instance]);
    assert.equal(await tested.phase(ready), "ready");
    assert.equal((await tested.startVm(prepared)).at(-1)?.stage, Stage.ADDRESS);
  });

  it("finishes a start that its end interrupted", async () => {
    await using tested = await AdaptorUnderTest.open();
    tested.provider.knobs.createLatencyMs = 500;
    const id = await tested.createVm();
    const cut = assert.rejects(tested.startVm(id), { code: "unavailable" });
    await tested.until(async () => (await tested.phase(id)) === "creating", "creating");
    await tested.restart();
    await cut;
    tested.provider.knobs.createLatencyMs = 0;
    await tested.until(async () => (await tested.phase(id)) === "booting", "the start is finished with nobody asking");
    assert.equal((await tested.instances()).length, 1);
  });

  it("with an empty store deletes no VM and calls no sandbox lost", async () => {
    await using tested = await AdaptorUnderTest.open();
    const id = await tested.createVm();
    await tested.startVm(id);
    const before = await tested.instances();
    await tested.restart(async () => {
      for (const name of ["store.sqlite", "store.sqlite-wal"]) await rm(join(tested.dir, name), { force: true });
    });
    const answer = await tested.client.syncNode({ nodeId: tested.nodeId, bootId: "b", liveSandboxIds: [id] }, call());
    assert.deepEqual([answer.lostSandboxIds, answer.stoppingSandboxIds], [[], []]);
    await new Promise((resolve) => setTimeout(resolve, 300)); // several passes of every loop
    assert.deepEqual(await tested.instances(), before);
  });
});

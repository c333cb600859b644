import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { withDeadline } from "../../src/base/call.ts";
import { type InstanceId, newOperationId, newSandboxId, type SandboxId } from "../../src/base/ids.ts";
import { silentLogger } from "../../src/base/log.ts";
import { makeCsr, newKeyPair, spkiFingerprint } from "../../src/identity/index.ts";
import type { Instance } from "../../src/provider/index.ts";
import { openRemote } from "../../src/shim/hypervisor/index.ts";
import { type AdaptorUnderTest, call } from "../fakes/adaptor-under-test.ts";
import { vmRequest } from "./hypervisor.ts";

/** An adaptor on some store, with what happens to stores. */
export interface SessionWorld extends AsyncDisposable {
  readonly tested: AdaptorUnderTest;
  /** The adaptor restarts, and its store is empty. */
  lose(): Promise<void>;
  /** The store becomes empty under the adaptor, where that can be. */
  loseWhileItRuns(): Promise<void>;
  /** The adaptor restarts; what is in the store now is what restore() brings back. */
  backup(): Promise<void>;
  restore(): Promise<void>;
}

type Open = (config: Readonly<Record<string, unknown>>) => Promise<SessionWorld>;
interface ProblemsAnswer {
  recovery: {
    epoch: string;
    open: boolean;
    kept: string[];
    unassigned: string[];
    waitingFor: string[];
    advice?: string;
  };
  silentNodes: { nodeId: string }[];
  stuckDeletes: { sandbox?: string; attempts: number; lastError?: string; pod?: string }[];
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
/** Longer than several passes of every loop. */
const PASSES_MS = 400;

/** What nodes and adaptor promise each other, whatever happens to either and to the store. */
export function sessionConformance(name: string, open: Open, skip: string | false = false): void {
  describe(`node sessions, store ${name}`, { timeout: 600_000, skip }, () => {
    let world: SessionWorld;
    let dir: string;
    beforeEach(async () => {
      dir = await mkdtemp(join(tmpdir(), "node-"));
    });
    afterEach(async () => {
      await world[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    });
    const start = async (config: Readonly<Record<string, unknown>> = {}): Promise<AdaptorUnderTest> => {
      const capacity = { breaker: { podFailures: 1000, classFailures: 1000 } };
      world = await open({ capacity, ...config });
      return world.tested;
    };
    const problems = () => world.tested.json<ProblemsAnswer>("/v1/problems");
    const recovered = () =>
      world.tested.until(async () => !(await problems()).recovery.open, "the recovery is over", 60_000);
    /** A node daemon's backend, with its files. */
    const node = (bootId = "boot-1") =>
      openRemote({
        ...{ address: `unix://${world.tested.config.grpc.socketPath}`, nodeId: "node-1", bootId, patienceMs: 15_000 },
        ...{ stateDir: join(dir, "state"), runDir: join(dir, "run"), log: silentLogger(), reportMs: 100 },
      });
    const c = () => withDeadline(20_000);
    const started = async (id?: SandboxId) => {
      const sandbox = await world.tested.createVm(id === undefined ? {} : { id });
      const instance = (await world.tested.startVm(sandbox)).at(-1)?.instanceId ?? "";
      return { id: sandbox, instance };
    };
    const sync = (change: object) =>
      world.tested.client.syncNode({ nodeId: "node-1", bootId: "boot-1", ...change }, call());
    const rest = (change: object) => ({ ...{ nodeId: "node-1", bootId: "boot-1" }, ...change });

    describe("reports", () => {
      it("that arrive late or twice do nothing", async () => {
        const tested = await start();
        const { id } = await started();
        await sync({ session: 5n, sequence: 2n, liveSandboxIds: [id] });
        for (const [session, sequence] of [
          [5n, 1n],
          [5n, 2n],
          [4n, 9n],
        ]) {
          const answer = await sync({ session, sequence, liveSandboxIds: [] });
          assert.deepEqual([answer.stale, answer.stoppingSandboxIds], [true, []]);
        }
        assert.equal(await tested.phase(id), "booting");
        const next = await sync({ session: 6n, sequence: 1n, liveSandboxIds: [] });
        assert.deepEqual([next.stale, next.stoppingSandboxIds], [false, [id]]);
      });

      it("say nothing of what the node made after it sent them", async () => {
        const tested = await start();
        const id = newSandboxId();
        const made = rest({ sandboxId: id, session: 5n, sequence: 3n });
        await tested.client.createVm(made, call());
        await tested.startVm(id);
        const late = await sync({ session: 5n, sequence: 3n, liveSandboxIds: [] });
        assert.deepEqual(late.stoppingSandboxIds, []);
        const later = await sync({ session: 5n, sequence: 4n, liveSandboxIds: [] });
        assert.deepEqual(later.stoppingSandboxIds, [id]);
      });

      it("carry the stops that could not be delivered, and these are carried out", async () => {
        const tested = await start();
        const { id } = await started();
        const pendingStops = [{ sandboxId: id, reason: "pod deleted" }];
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [id], pendingStops });
        await tested.until(async () => (await tested.phase(id)) === "gone", "stopped");
        assert.deepEqual(await tested.instances(), []);
      });

      it("make a sandbox ready whose ReportReady was lost", async () => {
        const tested = await start();
        const { id, instance } = await started();
        const live = [{ sandboxId: id, instanceId: instance, ready: true }];
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [id], live });
        assert.equal(await tested.phase(id), "ready");
      });
    });

    describe("a node", () => {
      it("that was rebooted has none of its sandboxes any more", async () => {
        const tested = await start({ nodes: { rebootQuietMs: 200 } });
        const { id } = await started();
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [id] });
        await sleep(300);
        const answer = await sync({ bootId: "boot-2", session: 1n, sequence: 1n, liveSandboxIds: [] });
        assert.deepEqual(answer.stoppingSandboxIds, [id]);
        await tested.until(async () => (await tested.instances()).length === 0, "its VM is removed");
      });

      it("with the id of a living one is refused, with the remedy, and harms nothing", async () => {
        const tested = await start({ nodes: { rebootQuietMs: 60_000 } });
        const { id } = await started();
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [id] });
        const double = { bootId: "boot-x", session: 1n, sequence: 1n };
        await assert.rejects(sync({ ...double, liveSandboxIds: [] }), {
          code: "failed_precondition",
          message: /node id node-1 is in use by another machine.*remove the file node-id/,
        });
        await assert.rejects(tested.client.createVm(rest({ sandboxId: newSandboxId(), ...double }), call()), {
          code: "failed_precondition",
        });
        assert.equal(await tested.phase(id), "booting");
        const { nodes } = await tested.json<{ nodes: { bootId: string }[] }>("/v1/nodes");
        assert.deepEqual(
          nodes.map((n) => n.bootId),
          ["boot-1"],
        );
      });

      it("that comes back from before a reboot is refused: it is a second machine", async () => {
        await start({ nodes: { rebootQuietMs: 0 } });
        await sync({ session: 1n, sequence: 1n });
        await sync({ bootId: "boot-2", session: 1n, sequence: 1n });
        await assert.rejects(sync({ session: 9n, sequence: 9n }), { code: "failed_precondition" });
      });

      it("that is silent is shown, and nothing of it is stopped unless the operator has set a time", async () => {
        const tested = await start({ nodes: { silentMs: 100 } });
        const { id } = await started();
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [id] });
        await tested.until(async () => (await problems()).silentNodes.length === 1, "silent");
        await sleep(PASSES_MS);
        assert.equal(await tested.phase(id), "booting");
      });

      it("that is gone for longer than the operator has set has its sandboxes stopped; not when most nodes are silent", async () => {
        const tested = await start({ nodes: { silentMs: 1_000, goneMs: 1_500 } });
        await recovered();
        const { id } = await started();
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [id] });
        const beat = async (nodeId: string) =>
          tested.client.syncNode({ nodeId, bootId: "b", session: 1n, sequence: BigInt(Date.now()) }, call());
        await beat("node-2");
        await sleep(2_500); // both are silent: it is the network
        assert.equal(await tested.phase(id), "booting");
        await tested.until(
          async () => {
            await Promise.all([beat("node-2"), beat("node-3")]);
            return (await tested.phase(id)) === "gone";
          },
          "what the one silent node had is stopped",
          30_000,
        );
        const { reason } = await tested
          .json<{ stopReason: string }>(`/v1/sandboxes/${id}`)
          .then((r) => ({ reason: r.stopReason }));
        assert.match(reason, /not heard of for/);
      });
    });

    describe("a store that came back empty", () => {
      it("learns from the node what lives, key included, and removes what the node does not have", async () => {
        const tested = await start();
        const hypervisor = await node();
        const over = new AbortController();
        const lost: string[] = [];
        const request = vmRequest();
        await hypervisor.sync([], c());
        await hypervisor.createVm(request, c());
        const { instanceId } = await hypervisor.startVm(request.sandboxId, c());
        const csrPem = makeCsr(newKeyPair().keyPem, "");
        await hypervisor.signGuest(request.sandboxId, csrPem, c());
        await hypervisor.reportReady(request.sandboxId, c());
        const watching = hypervisor.watch((loss) => lost.push(loss.reason), { signal: over.signal });
        const before = await tested.json<object>(`/v1/sandboxes/${request.sandboxId}`);

        await world.lose();
        await tested.until(async () => (await tested.phase(request.sandboxId)) === "ready", "rebuilt");
        const after = await tested.json<Record<string, unknown>>(`/v1/sandboxes/${request.sandboxId}`);
        for (const key of ["nodeId", "pod", "containerd", "intent", "instance", "guestKey", "phase"] as const) {
          assert.deepEqual(after[key], (before as Record<string, unknown>)[key], key);
        }
        await recovered();
        await sleep(PASSES_MS);
        assert.deepEqual(await tested.instances(), [instanceId]);
        assert.deepEqual(lost, []);
        const other = makeCsr(newKeyPair().keyPem, "");
        await assert.rejects(hypervisor.signGuest(request.sandboxId, other, c()), { code: "already_exists" });
        await hypervisor.stopVm(request.sandboxId, "pod ended", c());
        await tested.until(async () => (await tested.instances()).length === 0, "and it can be stopped");
        over.abort();
        await watching;
        await hypervisor.close();
      });

      it("also from a node daemon that was restarted meanwhile", async () => {
        const tested = await start();
        const first = await node();
        const request = vmRequest();
        await first.createVm(request, c());
        await first.startVm(request.sandboxId, c());
        const csrPem = makeCsr(newKeyPair().keyPem, "");
        await first.signGuest(request.sandboxId, csrPem, c());
        await first.close();
        await world.lose();
        assert.equal(await tested.phase(request.sandboxId), undefined);
        const second = await node();
        await second.sync([request.sandboxId], c());
        const record = await tested.json<{ phase: string; guestKey: { fingerprint: string }; pod: object }>(
          `/v1/sandboxes/${request.sandboxId}`,
        );
        assert.deepEqual(
          [record.phase, record.guestKey.fingerprint, record.pod],
          ["ready", spkiFingerprint(csrPem), request.pod],
        );
        assert.deepEqual(await readdir(join(dir, "run", "remote-sandboxes")), [`${request.sandboxId}.json`]);
        await second.close();
      });

      it("fails a start that it has forgotten, rather than never ending it", async () => {
        const tested = await start();
        tested.provider.knobs.pollsToAddress = 1_000;
        const id = await tested.createVm();
        const starting = assert.rejects(tested.startVm(id), (e: { code: string }) =>
          ["not_found", "unavailable"].includes(e.code),
        );
        await tested.until(async () => (await tested.instances()).length === 1, "its VM is made");
        await world.loseWhileItRuns();
        await starting;
      });

      it("carries out a stop of what it has forgotten", async () => {
        const tested = await start();
        const { id, instance } = await started();
        await world.lose();
        await tested.client.stopVm({ sandboxId: id, nodeId: "node-1", instanceId: instance, reason: "ended" }, call());
        await tested.until(async () => (await tested.instances()).length === 0, "removed");
        assert.equal(await tested.phase(id), "gone");
      });

      it("does not take another node's VM for a node's word", async () => {
        const tested = await start();
        const { instance } = await started();
        await world.lose();
        const thief = newSandboxId();
        const owner = newSandboxId();
        const live = (sandboxId: string) => [{ sandboxId, instanceId: instance, ready: true }];
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [owner], live: live(owner) });
        const answer = await tested.client.syncNode(
          { nodeId: "node-2", bootId: "b", session: 1n, sequence: 1n, liveSandboxIds: [thief], live: live(thief) },
          call(),
        );
        assert.ok(answer.storeEpoch !== "");
        assert.equal(await tested.phase(thief), undefined);
        assert.equal(await tested.phase(owner), "ready");
      });

      it("keeps what nobody claims until an operator confirms, and says so", async () => {
        const tested = await start({ rest: { port: 0 } });
        const { instance } = await started();
        await world.lose();
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [] });
        await sleep(PASSES_MS);
        assert.deepEqual(await tested.instances(), [instance]);
        const { recovery } = await problems();
        assert.deepEqual([recovery.open, recovery.kept, recovery.unassigned], [true, [instance], [instance]]);
        const metrics = await (await fetch(`${tested.rest}/metrics`)).text();
        assert.match(metrics, /kata_remote_recovery_open 1\n/);
        assert.match(metrics, /kata_remote_recovery_kept_instances 1\n/);
        assert.match((await tested.json<{ recovery: string }>("/readyz")).recovery, /open/);
        const { events } = await tested.json<{ events: { kind: string; message: string }[] }>("/v1/events");
        const told = events.filter((e) => e.kind === "RecoveryOpen").map((e) => e.message);
        // What is told, and what `adaptor problems` and `ps` show, says that it takes an operator, and which command.
        for (const text of [told.at(-1), recovery.advice]) {
          assert.match(text ?? "", new RegExp(`${instance} may have been launched just when the store lost`));
          assert.match(text ?? "", new RegExp(`adaptor confirm-recovery ${recovery.epoch}`));
        }
        await assert.rejects(tested.admin.confirmRecovery({ epoch: "another" }, call()), {
          code: "failed_precondition",
        });
        await tested.admin.confirmRecovery({ epoch: recovery.epoch }, call());
        await tested.until(async () => (await tested.instances()).length === 0, "removed now");
      });

      it("waits for every node that an instance names, and removes then what they do not have", async () => {
        const tested = await start();
        await started();
        const { listInstances } = tested.provider;
        tested.provider.listInstances = async function (cluster) {
          const all = await listInstances.call(this, cluster);
          return all.map((i): Instance => ({ ...i, assigned: { nodeId: "node-1" } }));
        };
        await world.lose();
        await sleep(PASSES_MS);
        assert.equal((await tested.instances()).length, 1);
        assert.deepEqual((await problems()).recovery.waitingFor, ["node-1"]);
        await sync({ session: 1n, sequence: 1n, liveSandboxIds: [] });
        await tested.until(async () => (await tested.instances()).length === 0, "the node has reported");
      });
    });

    describe("a store that was set back", () => {
      it("stops nothing for want of a newer record, and catches up from the node", async () => {
        const tested = await start();
        const hypervisor = await node();
        const over = new AbortController();
        const lost: string[] = [];
        const [early, late] = [vmRequest(), vmRequest()];
        await hypervisor.sync([], c());
        await hypervisor.createVm(early, c()); // prepared when the copy is made, started afterwards
        await world.backup();
        await hypervisor.startVm(early.sandboxId, c());
        await hypervisor.reportReady(early.sandboxId, c());
        await hypervisor.createVm(late, c());
        await hypervisor.startVm(late.sandboxId, c());
        await hypervisor.reportReady(late.sandboxId, c());
        const watching = hypervisor.watch((loss) => lost.push(loss.reason), { signal: over.signal });
        const instances = await tested.instances();
        assert.equal(instances.length, 2);
        await sleep(1_200); // the mark of what was seen is written within a second
        await world.restore();
        for (const { sandboxId } of [early, late]) {
          await tested.until(async () => (await tested.phase(sandboxId)) === "ready", "known again");
        }
        await recovered();
        await sleep(PASSES_MS);
        assert.deepEqual((await tested.instances()).toSorted(), instances.toSorted());
        assert.deepEqual(lost, []);
        over.abort();
        await watching;
        await hypervisor.close();
      });

      it("starts no sandbox that may have been started before", async () => {
        const tested = await start();
        const id = await tested.createVm();
        await world.backup();
        await tested.startVm(id);
        const instances = await tested.instances();
        await sleep(1_200); // as above
        await world.restore();
        await assert.rejects(tested.startVm(id), { code: "failed_precondition", message: /make a new one/ });
        assert.deepEqual(await tested.instances(), instances);
        await tested.client.stopVm({ sandboxId: id, nodeId: "node-1", instanceId: instances[0] ?? "" }, call());
        await tested.until(async () => (await tested.instances()).length === 0, "its node can have it removed");
      });

      it("is noticed by what a node was told, when nothing else remembers", async () => {
        const tested = await start();
        const { id } = await started();
        const { storeEpoch } = await sync({ session: 1n, sequence: 1n, liveSandboxIds: [id] });
        await recovered();
        const told = { storeEpoch, storeSeq: 1_000_000n };
        const answer = await sync({ session: 1n, sequence: 2n, liveSandboxIds: [id], ...told });
        assert.notEqual(answer.storeEpoch, storeEpoch);
        assert.equal(answer.recovering, true);
        assert.equal(await tested.phase(id), "booting");
      });
    });

    describe("limits", () => {
      it("per node and per namespace are refused with the numbers, and end with the sandbox", async () => {
        const tested = await start({ limits: { sandboxesPerNode: 2, sandboxesPerNamespace: 3 } });
        const [first] = [await tested.createVm(), await tested.createVm()];
        await assert.rejects(tested.createVm(), {
          code: "resource_exhausted",
          message: /all 2 sandboxes that limits.sandboxesPerNode allows are taken: 2 live on node node-1/,
        });
        await tested.createVm({ nodeId: "node-2" });
        await assert.rejects(tested.createVm({ nodeId: "node-2" }), {
          code: "resource_exhausted",
          message: /limits.sandboxesPerNamespace allows are taken: 3 live in namespace default/,
        });
        await tested.restart();
        await assert.rejects(tested.createVm({ nodeId: "node-3" }), { code: "resource_exhausted" });
        await tested.client.stopVm({ sandboxId: first as string }, call());
        await tested.createVm();
      });
    });

    describe("deletions", () => {
      it("answer at once and go on; one that is stuck is told of", async () => {
        const tested = await start({
          reconcile: { intervalMs: 50, lostIntervalMs: 50, stuckDeleteMs: 200 },
          limits: { stopTimeoutMs: 1_000 },
        });
        const { id } = await started();
        tested.provider.deleteInstance = async () => "deleting";
        const asked = performance.now();
        await tested.client.stopVm({ sandboxId: id }, call());
        assert.ok(performance.now() - asked < 1_000);
        const [stuck] = await tested.until(async () => {
          const { stuckDeletes } = await problems();
          return stuckDeletes[0]?.lastError === undefined ? undefined : stuckDeletes;
        }, "it is shown with its error");
        assert.deepEqual([stuck?.sandbox, stuck?.pod], [id, "default/web"]);
        const metrics = await (await fetch(`${tested.rest}/metrics`)).text();
        assert.match(metrics, /kata_remote_stuck_deletes 1\n/);
        await tested.until(async () => {
          const { events } = await tested.json<{ events: { kind: string; sandbox?: string }[] }>("/v1/events");
          const told = events.filter((e) => e.kind === "DeleteStuck").map((e) => e.sandbox);
          assert.ok(told.length <= 1, "it is told once");
          return told[0] === id;
        }, "it is told");
      });

      it("are repeated without harm, and a listing that says nothing is there is not believed at once", async () => {
        const tested = await start({ reconcile: { intervalMs: 50, lostIntervalMs: 50, massLossMs: 60_000 } });
        const ids = await Promise.all([1, 2, 3, 4].map(() => started()));
        const { listInstances, getInstance } = tested.provider;
        tested.provider.listInstances = async () => [];
        tested.provider.getInstance = async () => undefined;
        const noted = async () => {
          const { events } = await tested.json<{ events: { kind: string }[] }>("/v1/events");
          return events.filter((e) => e.kind === "MassLoss").length;
        };
        await tested
          .until(async () => (await noted()) > 0, "it is noted")
          .catch(async (e: unknown) => {
            throw new Error(JSON.stringify(await tested.json("/v1/reconcile")), { cause: e });
          });
        await sleep(PASSES_MS);
        for (const { id } of ids) assert.equal(await tested.phase(id), "booting");
        assert.equal(await noted(), 1);
        tested.provider.listInstances = listInstances;
        tested.provider.getInstance = getInstance;
        const [first] = ids;
        const stop = () => tested.client.stopVm({ sandboxId: first?.id ?? "" }, call());
        await Promise.all([stop(), stop(), stop()]);
        await tested.until(async () => (await tested.phase(first?.id as SandboxId)) === "gone", "gone");
        await stop();
      });

      it("of an instance without an owner are noted; an order from before a loss of the store is not carried out", async () => {
        const tested = await start();
        await recovered();
        const tags = { cluster: "test", owner: "kata-remote", createOperation: newOperationId() } as const;
        const make = (created: Date) =>
          tested.provider.createInstance(
            {
              ...{ name: "podvm-x", sandboxId: newSandboxId(), vcpus: 1, memoryMiB: 128, gpus: 0 },
              ...{ tags: { ...tags, created: created.toISOString() }, userData: Buffer.from("") },
            },
            call(),
          );
        await make(new Date());
        await tested.until(async () => (await tested.instances()).length === 0, "the orphan is removed");
        const { events } = await tested.json<{ events: { kind: string; instance?: InstanceId }[] }>("/v1/events");
        assert.equal(events.filter((e) => e.kind === "OrphanRemoved").length, 1);
        const { loops } = await tested.json<{ loops: { name: string; repaired: number; leads: boolean }[] }>(
          "/v1/reconcile",
        );
        const orphans = loops.find((l) => l.name === "orphan-instances");
        assert.deepEqual([orphans?.repaired, orphans?.leads], [1, true]);
      });
    });
  });
}

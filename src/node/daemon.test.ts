import assert from "node:assert/strict";
import { access, lstat, mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { background } from "../base/call.ts";
import { parseConfig } from "../base/config.ts";
import { Fault } from "../base/fault.ts";
import { newSandboxId, type SandboxId } from "../base/ids.ts";
import { silentLogger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { ControlDefinition } from "../gen/kataremote/node/v1/control.ts";
import type { Hypervisor, VmLoss } from "../shim/hypervisor/index.ts";
import type { ShimDeps, ShimSandboxStatus, ShimService } from "../shim/index.ts";
import { createClient, TtrpcClient } from "../ttrpc/index.ts";
import { NodeConfig } from "./config.ts";
import { type NodeDaemonDeps, startNodeDaemon } from "./daemon.ts";
import { doorOf, doorSocket } from "./doors.ts";

const CONTAINERD = "/run/containerd/containerd.sock";
const at = new Date(1_700_000_000_000);

/** Records what the daemon asks; the node's own parts are real. */
async function world(change: Record<string, unknown> = {}) {
  const dir = await mkdtemp(join(tmpdir(), "node-"));
  const log: string[] = [];
  const config = parseConfig(NodeConfig, { runDir: join(dir, "run"), stateDir: join(dir, "state"), ...change }, "test");
  const pods: ShimSandboxStatus[] = [];
  const watch = Promise.withResolvers<(loss: VmLoss) => void>();
  const hypervisor = {
    name: "remote",
    sync: async (live: readonly SandboxId[]) => void log.push(`sync ${live.length}`),
    watch: async (onLoss: (loss: VmLoss) => void, call: { signal: AbortSignal }) => {
      watch.resolve(onLoss);
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      log.push("watch ended");
    },
    close: async () => void log.push("hypervisor closed"),
  } as unknown as Hypervisor;
  const shim = (deps: ShimDeps): ShimService => ({
    answer: async (request) => ({
      ok: true,
      payload: Buffer.from(`${deps.doorAddress(request.door)} ${request.method}`),
    }),
    recover: async () => void log.push("recover"),
    cleanup: async (address, namespace, id) => {
      log.push(`cleanup ${address} ${namespace} ${id}`);
      return { pid: 42, exitStatus: 137, exitedAt: at };
    },
    status: () => pods,
    sandboxCount: () => pods.length,
    liveSandboxes: () => [],
    onVmLoss: (loss) => void log.push(`lost ${loss.reason}`),
    handOver: async (reason) => void log.push(`shim handed over: ${reason}`),
    close: async (reason) => void log.push(`shim closed: ${reason}`),
  });
  const deps = (more: Partial<NodeDaemonDeps> = {}): NodeDaemonDeps => ({
    log: silentLogger(),
    createShim: shim,
    openHypervisors: async () => new Map([["remote", hypervisor]]),
    ...{ supervised: false, ownProcess: false, doors: [] },
    ...more,
  });
  return {
    ...{ dir, log, config, pods, deps, watch: watch.promise },
    start: (more?: Partial<NodeDaemonDeps>) => startNodeDaemon(config, deps(more), background()),
    path: (name: string) => join(config.runDir, name),
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true }),
  };
}

async function ask(path: string, method: string): Promise<string> {
  const client = new TtrpcClient(connect(path));
  try {
    return Buffer.from(await client.call("containerd.task.v2.Task", method, new Uint8Array())).toString();
  } finally {
    client.close();
  }
}

const missing = (path: string) => assert.rejects(access(path), { code: "ENOENT" });

describe("node daemon", () => {
  it("cleans up first, then serves, says so, and takes it all back in order", async () => {
    await using w = await world();
    const daemon = await w.start({ doors: [CONTAINERD] });
    assert.deepEqual(w.log, ["recover", "sync 0"]);
    const startTime = (await readFile("/proc/self/stat", "utf8")).split(") ")[1]?.split(" ")[19];
    assert.equal(await readFile(w.path("node.ready"), "utf8"), `${process.pid} ${startTime}\n`);
    const socket = doorSocket(w.config.runDir, doorOf(CONTAINERD));
    assert.match(socket, /\/s\/[0-9a-f]{32}\.sock$/);
    assert.equal(await ask(socket, "State"), `${CONTAINERD} State`);
    (await w.watch)({ sandboxId: newSandboxId(), reason: "spot" });
    await daemon.close("test");
    await daemon.close("again");
    assert.deepEqual(w.log.slice(2), ["lost spot", "watch ended", "shim closed: test", "hypervisor closed"]);
    for (const path of [w.path("node.ready"), w.path("control.sock"), socket]) await missing(path);
  });

  it("opens the doors of its predecessor again", async () => {
    await using w = await world();
    const first = await w.start();
    const address = await first.openDoor("/other/containerd.sock");
    await first.close("test");
    await writeFile(w.path("doors/junk.json"), "{");
    const second = await w.start();
    assert.equal(await ask(address.slice("unix://".length), "Pids"), "/other/containerd.sock Pids");
    await second.close("test");
  });

  it("keeps its node id", async () => {
    await using w = await world();
    const first = await w.start();
    await first.close("test");
    const second = await w.start();
    assert.equal(second.nodeId, first.nodeId);
    assert.match(first.nodeId, /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/);
    await second.close("test");
  });

  it("closes what it had opened when it cannot start", async () => {
    await using w = await world();
    const broken = (): never => {
      throw new Fault("internal", "broken");
    };
    await assert.rejects(w.start({ doors: [`/${"x".repeat(20)}`], createShim: broken }), {
      message: "broken",
    });
    assert.deepEqual(w.log, ["hypervisor closed"]);
    await missing(w.path("node.ready"));
  });
});

describe("control socket", () => {
  it("opens doors, cleans up and tells the state", async () => {
    await using w = await world();
    w.pods.push({
      ...{ sandboxId: newSandboxId(), containerdAddress: CONTAINERD, namespace: "k8s.io", id: "pod1" },
      ...{ pod: { namespace: "n", name: "p", uid: "u" }, hypervisor: "remote", state: "running", instanceId: "i-1" },
      ...{ createdAt: at, guestBootId: "b", guestKernel: "k" },
      containers: [{ id: "c", state: "stopped", exitCode: 37, rootfs: "guest" }],
      pulls: ["app: 1.0 of 2.0 MiB"],
      timings: [{ stage: "address", ms: 12.6 }],
    });
    const daemon = await w.start();
    assert.equal((await lstat(w.path("control.sock"))).mode & 0o777, 0o600);
    const connection = new TtrpcClient(connect(w.path("control.sock")));
    const control = createClient(ControlDefinition, connection);
    const { address } = await control.openDoor({ containerdAddress: CONTAINERD });
    assert.equal(address, `unix://${doorSocket(w.config.runDir, doorOf(CONTAINERD))}`);
    assert.equal((await control.openDoor({ containerdAddress: CONTAINERD })).address, address);
    const cleaned = await control.cleanup({ containerdAddress: CONTAINERD, namespace: "k8s.io", id: "x" });
    assert.deepEqual(
      [cleaned.pid, cleaned.exitStatus, cleaned.exitedAtUnixNano],
      [42, 137, 1_700_000_000_000_000_000n],
    );
    assert.ok(w.log.includes(`cleanup ${CONTAINERD} k8s.io x`));
    const status = await control.status({});
    assert.deepEqual([status.version, status.nodeId, status.pid], [VERSION, daemon.nodeId, process.pid]);
    const [pod] = status.sandboxes;
    assert.deepEqual(
      [pod?.id, pod?.state, pod?.containers[0]?.exitCode, pod?.timings[0]?.ms],
      ["pod1", "running", 37, 13n],
    );
    connection.close();
    await daemon.close("test");
  });
});

describe("idle exit", () => {
  /** The daemon under a clock that runs fast; nothing else waits. */
  async function idle(change: Partial<NodeDaemonDeps> = {}) {
    const w = await world({ idleExitMs: 1000 });
    let skipMs = 0;
    const daemon = await w.start({ now: () => Date.now() + skipMs, ...change });
    let ended = false;
    void daemon.idle.then(() => {
      ended = true;
    });
    return {
      ...{ ...w, daemon },
      skip: (ms: number) => {
        skipMs += ms;
      },
      ended: () => ended,
      ready: () =>
        access(w.path("node.ready")).then(
          () => true,
          () => false,
        ),
      turns: () => new Promise((resolve) => setTimeout(resolve, 700)),
      [Symbol.asyncDispose]: async () => {
        await daemon.close("test");
        await w[Symbol.asyncDispose]();
      },
    };
  }

  it("comes when there was no pod and no start for long enough", async () => {
    await using t = await idle();
    t.skip(60_000);
    await t.daemon.idle;
    assert.equal(await t.ready(), false);
  });

  it("does not come while there are pods", async () => {
    await using t = await idle();
    t.pods.push({} as ShimSandboxStatus);
    t.skip(60_000);
    await t.turns();
    assert.deepEqual([t.ended(), await t.ready()], [false, true]);
    t.pods.pop();
    t.skip(60_000);
    await t.daemon.idle;
  });

  it("does not come when a launcher has just announced a start", async () => {
    await using t = await idle();
    t.skip(60_000);
    await writeFile(t.path("last-start"), "");
    const soon = new Date(Date.now() + 60_000);
    await utimes(t.path("last-start"), soon, soon);
    await t.turns();
    assert.deepEqual([t.ended(), await t.ready()], [false, true]);
    t.skip(60_000);
    await t.daemon.idle;
  });

  it("never comes under a supervisor", async () => {
    await using t = await idle({ supervised: true });
    t.skip(3_600_000);
    await t.turns();
    assert.deepEqual([t.ended(), await t.ready()], [false, true]);
  });
});

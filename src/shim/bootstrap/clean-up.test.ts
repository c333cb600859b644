import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { FakeHypervisor } from "../../../test/fakes/hypervisor.ts";
import { background } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { newSandboxId } from "../../base/ids.ts";
import { silentLogger } from "../../base/log.ts";
import { ControlDefinition } from "../../gen/kataremote/node/v1/control.ts";
import type { PodNetworkTarget } from "../../podnetwork/index.ts";
import { TtrpcServer } from "../../ttrpc/index.ts";
import { SandboxStateStore } from "../sandbox/index.ts";
import { cleanUp } from "./clean-up.ts";
import { parseDeleteFlags } from "./delete-flags.ts";

const FLAGS = { address: "/containerd.sock", namespace: "k8s.io", id: "pod" };
let runDir: string;
let hypervisor: FakeHypervisor;
let opened: number;
let server: Server | undefined;
beforeEach(async () => {
  runDir = await mkdtemp(join(tmpdir(), "clean-up-"));
  hypervisor = new FakeHypervisor();
  opened = 0;
  detached = [];
});
afterEach(async () => {
  server?.close();
  server = undefined;
  await rm(runDir, { recursive: true, force: true });
});

let detached: string[];
const deps = () => ({
  runDir,
  log: silentLogger(),
  openBackends: async () => {
    opened++;
    const detach = async ({ sandboxId, netnsPath }: PodNetworkTarget) =>
      void detached.push(`${sandboxId} ${netnsPath}`);
    return { hypervisors: new Map([["remote", hypervisor]]), podNetwork: { detach } };
  },
});

async function leave(id = FLAGS.id, kind: "pod_sandbox" | "single_container" = "pod_sandbox") {
  const sandboxId = newSandboxId();
  const { address, namespace } = FLAGS;
  const state = {
    version: 1 as const,
    sandboxId,
    address,
    namespace,
    id,
    bundle: "/b",
    hypervisor: "remote",
    netnsPath: "/run/netns/cni-1",
    kind,
    daemonGeneration: "dead",
    createdAt: "2026-01-01T00:00:00Z",
  };
  await new SandboxStateStore(runDir).write(state);
  return sandboxId;
}

describe("delete without a daemon", () => {
  it("stops the VM that the state file names, and no other", async () => {
    const id = await leave();
    await leave("other");
    const result = await cleanUp(deps(), FLAGS, background());
    assert.equal(result.exitStatus, 137);
    assert.deepEqual(
      hypervisor.stopped.map((s) => s.id),
      [id],
    );
    assert.deepEqual(detached, [`${id} /run/netns/cni-1`]);
    assert.equal((await readdir(join(runDir, "tasks"))).length, 1);
  });

  it("of what has no VM opens no backend", async () => {
    assert.equal((await cleanUp(deps(), FLAGS, background())).exitStatus, 137);
    assert.equal(opened, 0);
  });

  it("keeps the state file when the backend is away, but nothing of the network", async () => {
    const id = await leave();
    hypervisor.beforeStop = async () => {
      throw new Fault("unavailable", "no adaptor");
    };
    assert.equal((await cleanUp(deps(), FLAGS, background())).exitStatus, 137);
    assert.equal((await readdir(join(runDir, "tasks"))).length, 1);
    assert.deepEqual(detached, [`${id} /run/netns/cni-1`]);
  });
});

describe("delete with a daemon", () => {
  it("leaves it to the daemon and passes its answer on", async () => {
    await leave();
    let asked: unknown;
    const ttrpc = new TtrpcServer();
    ttrpc.addService(ControlDefinition, {
      cleanup: async ({ containerdAddress, namespace, id }) => {
        asked = { address: containerdAddress, namespace, id };
        return { pid: 12, exitStatus: 3, exitedAtUnixNano: 1_700_000_000_123_000_000n };
      },
    });
    server = createServer((socket) => void ttrpc.accept(socket)).listen(join(runDir, "control.sock"));
    await new Promise((resolve) => server?.once("listening", resolve));
    const result = await cleanUp(deps(), FLAGS, background());
    assert.deepEqual(result, { pid: 12, exitStatus: 3, exitedAt: new Date(1_700_000_000_123) });
    assert.deepEqual([asked, opened], [FLAGS, 0]);
  });
});

describe("parseDeleteFlags", () => {
  it("reads what the launcher passes on", () => {
    assert.deepEqual(
      parseDeleteFlags(["-namespace", "k8s.io", "-address", "/containerd.sock", "-id", "pod", "-bundle", ""]),
      FLAGS,
    );
  });

  it("refuses a call without id", () => {
    assert.throws(() => parseDeleteFlags(["-namespace", "x"]), {
      code: "invalid_argument",
      message: /flag -id is missing/,
    });
    assert.throws(() => parseDeleteFlags(["pod"]), { message: /"pod" is not a flag/ });
  });
});

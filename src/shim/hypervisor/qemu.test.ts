import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { describe, it } from "node:test";
import { hypervisorConformance, vmRequest } from "../../../test/conformance/hypervisor.ts";
import { withDeadline } from "../../base/call.ts";
import { type Deferred, deferred } from "../../base/deferred.ts";
import { newSandboxId } from "../../base/ids.ts";
import { silentLogger } from "../../base/log.ts";
import { race } from "../../base/retry.ts";
import { CONSOLE_KEY_PREFIX, GUEST_PORT } from "../../guestwire/index.ts";
import { CertificateAuthority, makeCsr, newKeyPair, spkiFingerprint } from "../../identity/index.ts";
import type { Vmm, VmmHandle, VmmSpec } from "../../vmm/index.ts";
import { QemuHypervisor } from "./qemu.ts";

/** A monitor without machines. Its contract is tested where the real driver is. */
class FakeVmm implements Vmm, AsyncDisposable {
  readonly name = "fake";
  readonly specs: VmmSpec[] = [];
  readonly living = new Map<string, { handle: VmmHandle; end: Deferred<{ reason: string }> }>();
  onStart: (() => Promise<void>) | undefined;

  async start(spec: VmmSpec, call: { signal: AbortSignal }): Promise<VmmHandle> {
    await race(this.onStart?.() ?? Promise.resolve(), call);
    const living = this.living.get(spec.dir);
    if (living !== undefined) return living.handle;
    this.specs.push(spec);
    const handle = { dir: spec.dir, pid: 1, startTicks: "1", hostPort: 40_000 + this.specs.length };
    this.living.set(spec.dir, { handle, end: deferred() });
    return handle;
  }

  async find(dir: string): Promise<VmmHandle | undefined> {
    return this.living.get(dir)?.handle;
  }

  wait(handle: VmmHandle, call: { signal: AbortSignal }): Promise<{ readonly reason: string }> {
    return race(this.living.get(handle.dir)?.end.promise ?? Promise.resolve({ reason: "gone" }), call);
  }

  async destroy(dir: string): Promise<void> {
    this.living.get(dir)?.end.resolve({ reason: "killed by SIGKILL" });
    this.living.delete(dir);
    await rm(dir, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.living.clear();
  }
}

async function world() {
  const dir = await mkdtemp(join(tmpdir(), "qemu-"));
  const vmm = new FakeVmm();
  const consoles = new Map<string, string>();
  const ca = await CertificateAuthority.open(join(dir, "ca"));
  const open = (): QemuHypervisor =>
    new QemuHypervisor({
      ...{ vmm, ca, nodeId: "node-1", stateDir: dir, qemuPath: "true", log: silentLogger() },
      bootImage: async () => ({ kernelPath: "/k", initrdPath: "/i", imagePath: "/r", kernelParams: ["quiet"] }),
      readConsole: async (vmDir) => consoles.get(basename(vmDir)),
      network: {
        assign: async ({ keep }) => {
          await keep(undefined);
          return undefined;
        },
        release: async () => undefined,
      },
      ...{ defaultVcpus: 2, defaultMemoryMiB: 512, guestOverheadMiB: 100, acceleration: "tcg", outbound: false },
    });
  const hypervisor = open();
  return {
    ...{ dir, vmm, consoles, hypervisor, open },
    [Symbol.asyncDispose]: async () => {
      await hypervisor.close();
      await rm(dir, { recursive: true });
    },
  };
}

const call = () => withDeadline(10_000);

hypervisorConformance("qemu", async () => {
  const w = await world();
  const check = w.hypervisor.check.bind(w.hypervisor);
  assert.equal(typeof check, "function");
  return {
    hypervisor: Object.assign(w.hypervisor, { check: async () => ({ version: "QEMU emulator version 7.2.9" }) }),
    exists: async (id) => w.vmm.living.has(join(w.dir, "vms", id)),
    boot: async (id, csrPem) =>
      void w.consoles.set(id, `[ 1.0] boot\r\n${CONSOLE_KEY_PREFIX}${spkiFingerprint(csrPem)}\r\n`),
    crash: async (id) => w.vmm.living.get(join(w.dir, "vms", id))?.end.resolve({ reason: "exit 1" }),
    [Symbol.asyncDispose]: () => w[Symbol.asyncDispose](),
  };
});

describe("qemu hypervisor", () => {
  it("sizes the machine: the pod's memory plus the guest's own, whole CPUs, defaults for 0", async () => {
    await using w = await world();
    const [asks, asksNothing] = [vmRequest(), vmRequest(newSandboxId(), { vcpus: 0, memoryMiB: 0 })];
    for (const request of [asks, asksNothing]) {
      await w.hypervisor.createVm(request);
      await w.hypervisor.startVm(request.sandboxId, call());
    }
    assert.deepEqual(
      w.vmm.specs.map(({ vcpus, memoryMiB }) => [vcpus, memoryMiB]),
      [
        [2, 356],
        [2, 612],
      ],
    );
    const [spec] = w.vmm.specs;
    assert.equal(spec?.guestPort, GUEST_PORT);
    assert.equal(spec?.lifetime, "child");
    assert.match(Buffer.from(spec?.userData ?? []).toString(), /^#cloud-config[\s\S]*BEGIN CERTIFICATE/);
  });

  it("signs only the key that the console shows", async () => {
    await using w = await world();
    const request = vmRequest();
    const id = request.sandboxId;
    await w.hypervisor.createVm(request);
    await w.hypervisor.startVm(id, call());
    const csr = makeCsr(newKeyPair().keyPem, "guest");
    const early = w.hypervisor.signGuest(id, csr, call());
    w.consoles.set(id, `${CONSOLE_KEY_PREFIX}${spkiFingerprint(csr).slice(0, 20)}`); // half a line so far
    await new Promise((r) => setTimeout(r, 150));
    w.consoles.set(id, `${CONSOLE_KEY_PREFIX}${spkiFingerprint(csr)}\r\n`);
    assert.equal((await early).verifiedBy, "console");
    const other = makeCsr(newKeyPair().keyPem, "guest");
    await assert.rejects(w.hypervisor.signGuest(id, other, call()), {
      code: "permission_denied",
      message: /another key/,
    });
  });

  it("says so when the console shows no key", async () => {
    await using w = await world();
    const request = vmRequest();
    await w.hypervisor.createVm(request);
    await w.hypervisor.startVm(request.sandboxId, call());
    const csr = makeCsr(newKeyPair().keyPem, "guest");
    await assert.rejects(w.hypervisor.signGuest(request.sandboxId, csr, withDeadline(200)), {
      code: "deadline_exceeded",
    });
  });

  it("refuses what it cannot give, naming it", async () => {
    await using w = await world();
    for (const [change, what] of [
      [{ instanceType: "m6a.large" }, /instance type "m6a.large"/],
      [{ image: "ami-1" }, /image "ami-1"/],
      [{ gpus: 2 }, /2 GPUs/],
    ] as const) {
      await assert.rejects(w.hypervisor.createVm(vmRequest(newSandboxId(), change)), {
        code: "invalid_argument",
        message: what,
      });
    }
  });

  it("leaves no VM when the stop comes while it starts", async () => {
    await using w = await world();
    const request = vmRequest();
    const hold = deferred<void>();
    w.vmm.onStart = () => hold.promise;
    await w.hypervisor.createVm(request);
    const start = w.hypervisor.startVm(request.sandboxId, call());
    start.catch(() => undefined);
    await w.hypervisor.stopVm(request.sandboxId, "test", call());
    hold.resolve();
    await assert.rejects(start, { code: "cancelled" });
    assert.equal(w.vmm.living.size, 0);
  });

  it("destroys what a dead daemon left, and nothing else", async () => {
    await using w = await world();
    const request = vmRequest();
    await w.hypervisor.createVm(request);
    await w.hypervisor.startVm(request.sandboxId, call());
    const left = newSandboxId();
    await mkdir(join(w.dir, "vms", left), { recursive: true });
    await w.hypervisor.sync([], call());
    assert.deepEqual(await readdir(join(w.dir, "vms")), [request.sandboxId]);
  });

  it("ends every VM when it is closed", async () => {
    await using w = await world();
    const request = vmRequest();
    await w.hypervisor.createVm(request);
    await w.hypervisor.startVm(request.sandboxId, call());
    await w.hypervisor.close();
    assert.deepEqual(await readdir(join(w.dir, "vms")), []);
  });
});

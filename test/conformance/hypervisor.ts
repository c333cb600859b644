import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import { withDeadline } from "../../src/base/call.ts";
import { newSandboxId, type SandboxId } from "../../src/base/ids.ts";
import { race } from "../../src/base/retry.ts";
import { makeCsr, newKeyPair } from "../../src/identity/index.ts";
import type { Hypervisor, VmLoss, VmRequest } from "../../src/shim/hypervisor/index.ts";

/** A backend under test, with what a test needs to see and do behind its back. */
export interface HypervisorUnderTest extends AsyncDisposable {
  readonly hypervisor: Hypervisor;
  /** Is there a VM (or its record) of this sandbox? */
  exists(id: SandboxId): Promise<boolean>;
  /** The guest of this VM has this key; what a backend can see of a guest from outside now shows it. */
  boot(id: SandboxId, csrPem: string): Promise<void>;
  /** The VM ends by itself. */
  crash(id: SandboxId): Promise<void>;
}

export function vmRequest(sandboxId: SandboxId = newSandboxId(), change: Partial<VmRequest> = {}): VmRequest {
  return {
    sandboxId,
    pod: { namespace: "default", name: "pod", uid: "uid" },
    containerd: { namespace: "k8s.io", id: "c1" },
    vcpus: 1.5,
    memoryMiB: 256,
    gpus: 0,
    ...change,
  };
}

/** What every Hypervisor promises. */
export function hypervisorConformance(name: string, create: () => Promise<HypervisorUnderTest>): void {
  const call = () => withDeadline(10_000);

  describe(`hypervisor ${name}`, () => {
    it("says who it is and what it can do", async () => {
      await using t = await create();
      assert.equal(t.hypervisor.name, name);
      assert.deepEqual(
        Object.values(t.hypervisor.capabilities).map((v) => typeof v),
        ["boolean", "boolean", "boolean"],
      );
      assert.ok((await t.hypervisor.check(call())).version.length > 0);
    });

    it("gives one client identity, signed by the CA that its guests trust", async () => {
      await using t = await create();
      const [one, two] = await Promise.all([t.hypervisor.clientIdentity(call()), t.hypervisor.clientIdentity(call())]);
      assert.deepEqual(one, two);
      const ca = new X509Certificate(one.caPem);
      const certificate = new X509Certificate(one.certificatePem);
      assert.ok(certificate.verify(ca.publicKey));
      assert.match(one.keyPem, /PRIVATE KEY/);
    });

    it("creates and starts a VM, again and again the same", async () => {
      await using t = await create();
      const request = vmRequest();
      const { sandboxId: id } = request;
      await t.hypervisor.createVm(request, call());
      await t.hypervisor.createVm(request, call());
      const [one, two] = await Promise.all([t.hypervisor.startVm(id, call()), t.hypervisor.startVm(id, call())]);
      assert.deepEqual(one, two);
      assert.ok(one.addresses.length > 0 && one.port > 0 && one.instanceId.length > 0);
      assert.deepEqual(await t.hypervisor.startVm(id, call()), one);
      assert.equal(await t.exists(id), true);
      await t.hypervisor.reportReady(id, call());
    });

    it("does not start what was never created", async () => {
      await using t = await create();
      await assert.rejects(t.hypervisor.startVm(newSandboxId(), call()), { code: "not_found" });
    });

    it("signs the guest's key, repeatedly, and refuses a second one", async () => {
      await using t = await create();
      const request = vmRequest();
      await t.hypervisor.createVm(request, call());
      await t.hypervisor.startVm(request.sandboxId, call());
      const csr = makeCsr(newKeyPair().keyPem, "guest");
      await t.boot(request.sandboxId, csr);
      const { caPem } = await t.hypervisor.clientIdentity(call());
      for (let n = 0; n < 2; n++) {
        const signed = await t.hypervisor.signGuest(request.sandboxId, csr, call());
        const certificate = new X509Certificate(signed.certificatePem);
        assert.ok(certificate.verify(new X509Certificate(caPem).publicKey));
        assert.equal(certificate.checkHost(request.sandboxId), request.sandboxId);
        assert.ok(["console", "address"].includes(signed.verifiedBy));
      }
      await assert.rejects(
        t.hypervisor.signGuest(request.sandboxId, makeCsr(newKeyPair().keyPem, "guest"), call()),
        (e: { code: string }) => {
          assert.ok(["already_exists", "permission_denied"].includes(e.code), e.code);
          return true;
        },
      );
    });

    it("stops a VM, also one that is unknown, not started or stopped already", async () => {
      await using t = await create();
      await t.hypervisor.stopVm(newSandboxId(), "test", call());
      const created = vmRequest();
      await t.hypervisor.createVm(created, call());
      await t.hypervisor.stopVm(created.sandboxId, "test", call());
      const started = vmRequest();
      await t.hypervisor.createVm(started, call());
      await t.hypervisor.startVm(started.sandboxId, call());
      await t.hypervisor.stopVm(started.sandboxId, "test", call());
      await t.hypervisor.stopVm(started.sandboxId, "test", call());
      assert.equal(await t.exists(created.sandboxId), false);
      assert.equal(await t.exists(started.sandboxId), false);
    });

    it("tells of a VM that ends by itself, not of one that was stopped", async () => {
      await using t = await create();
      const losses: VmLoss[] = [];
      const told = Promise.withResolvers<void>();
      const over = new AbortController();
      const watching = t.hypervisor.watch(
        (loss) => {
          losses.push(loss);
          told.resolve();
        },
        { signal: over.signal },
      );
      const [stays, crashes] = [vmRequest(), vmRequest()];
      for (const request of [stays, crashes]) {
        await t.hypervisor.createVm(request, call());
        await t.hypervisor.startVm(request.sandboxId, call());
      }
      await t.hypervisor.stopVm(stays.sandboxId, "test", call());
      await t.crash(crashes.sandboxId);
      await race(told.promise, call());
      assert.deepEqual(
        losses.map((loss) => loss.sandboxId),
        [crashes.sandboxId],
      );
      assert.ok((losses[0]?.reason.length ?? 0) > 0);
      over.abort();
      await race(watching, call());
    });

    it("stops on sync what is not named and was not made since", async () => {
      await using t = await create();
      const request = vmRequest();
      await t.hypervisor.createVm(request, call());
      await t.hypervisor.startVm(request.sandboxId, call());
      await t.hypervisor.sync([request.sandboxId], call());
      assert.equal(await t.exists(request.sandboxId), true);
      await t.hypervisor.sync([], call());
      assert.equal(await t.exists(request.sandboxId), true);
    });

    it("gives up when its caller does", async () => {
      await using t = await create();
      const gone = AbortSignal.abort();
      const request = vmRequest();
      await t.hypervisor.createVm(request, call());
      await assert.rejects(t.hypervisor.startVm(request.sandboxId, { signal: gone }), { code: "cancelled" });
    });
  });
}

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { withDeadline } from "../../src/base/call.ts";
import { type InstanceId, newOperationId, newSandboxId, parseInstanceId } from "../../src/base/ids.ts";
import type { Instance, InstanceSpec, Provider } from "../../src/provider/index.ts";

/** A provider under test with what it stands on. */
export interface ProviderUnderTest {
  readonly provider: Provider;
  /** A second one on the same account, as an adaptor after a restart has it. The first one stays usable. */
  reopen(): Promise<Provider>;
  close(): Promise<void>;
}

export interface ConformanceOptions {
  readonly skip?: string | false;
  /** Budget of one wait, ms. */
  readonly timeoutMs?: number;
}

/** What every provider promises the adaptor, in the words of src/provider/provider.ts. */
export function providerConformance(
  name: string,
  factory: () => Promise<ProviderUnderTest>,
  options: ConformanceOptions = {},
): void {
  const timeoutMs = options.timeoutMs ?? 30_000;

  describe(`provider ${name}`, { skip: options.skip ?? false, timeout: timeoutMs * 10 }, () => {
    let tested: ProviderUnderTest;
    let provider: Provider;
    before(async () => {
      tested = await factory();
      provider = tested.provider;
    });
    after(async () => {
      for (const cluster of ["conformance", "another"]) {
        for (const { id } of await provider.listInstances(cluster, withDeadline(timeoutMs))) await remove(id);
      }
      await tested.close();
    });

    function spec(change: Partial<InstanceSpec> = {}): InstanceSpec {
      const created = new Date().toISOString();
      return {
        name: "podvm-web-01234567",
        tags: { cluster: "conformance", owner: "kata-remote", createOperation: newOperationId(), created },
        ...{ sandboxId: newSandboxId(), vcpus: 1, memoryMiB: 256, gpus: 0, userData: Buffer.from("#cloud-config\n") },
        ...change,
      };
    }

    async function until(
      id: InstanceId,
      wanted: (instance: Instance | undefined) => boolean,
    ): Promise<Instance | undefined> {
      for (const call = withDeadline(timeoutMs); ; await delay(50, undefined, { signal: call.signal })) {
        const instance = await provider.getInstance(id, call);
        if (wanted(instance)) return instance;
      }
    }

    async function remove(id: InstanceId): Promise<void> {
      const call = withDeadline(timeoutMs);
      while ((await provider.deleteInstance(id, call)) !== "gone") await delay(50, undefined, { signal: call.signal });
    }

    it("makes an instance that has all its tags at once and an address soon", async () => {
      const wanted = spec();
      const made = await provider.createInstance(wanted, withDeadline(timeoutMs));
      assert.equal(parseInstanceId(made.id), made.id);
      assert.equal(made.name, wanted.name);
      assert.deepEqual({ ...made.tags }, wanted.tags);
      const listed = await provider.listInstances("conformance", withDeadline(timeoutMs));
      assert.deepEqual({ ...listed.find((i) => i.id === made.id)?.tags }, wanted.tags);
      const running = await until(made.id, (i) => i?.state === "running" && i.addresses.length > 0);
      assert.equal(running?.reason, undefined);
      await remove(made.id);
    });

    it("gives the first instance again for the same create operation, also side by side and after a restart", async () => {
      const wanted = spec();
      const call = withDeadline(timeoutMs);
      const [one, two] = await Promise.all([
        provider.createInstance(wanted, call),
        provider.createInstance(wanted, call),
      ]);
      assert.equal(one.id, two.id);
      const again = await tested.reopen();
      assert.equal((await again.createInstance(wanted, withDeadline(timeoutMs))).id, one.id);
      await again.close();
      const listed = await provider.listInstances("conformance", withDeadline(timeoutMs));
      assert.equal(listed.filter((i) => i.tags.createOperation === wanted.tags.createOperation).length, 1);
      await remove(one.id);
    });

    it("makes two instances for two operations of one name", async () => {
      const call = withDeadline(timeoutMs);
      const [one, two] = await Promise.all([
        provider.createInstance(spec(), call),
        provider.createInstance(spec(), call),
      ]);
      assert.notEqual(one.id, two.id);
      await Promise.all([remove(one.id), remove(two.id)]);
    });

    it("lists one cluster's instances only, those of an earlier process included", async () => {
      const mine = await provider.createInstance(spec(), withDeadline(timeoutMs));
      const tags = { ...spec().tags, cluster: "another" };
      const other = await provider.createInstance(spec({ tags }), withDeadline(timeoutMs));
      const again = await tested.reopen();
      for (const p of [provider, again]) {
        const ids = (await p.listInstances("conformance", withDeadline(timeoutMs))).map((i) => i.id);
        assert.ok(ids.includes(mine.id) && !ids.includes(other.id), ids.join(" "));
        assert.deepEqual(
          (await p.listInstances("another", withDeadline(timeoutMs))).map((i) => i.id),
          [other.id],
        );
      }
      const seen = await again.getInstance(mine.id, withDeadline(timeoutMs));
      assert.deepEqual({ ...seen?.tags }, { ...mine.tags });
      await again.close();
      await Promise.all([remove(mine.id), remove(other.id)]);
    });

    it("deletes until it is gone, and says gone again and for an id never seen", async () => {
      const made = await provider.createInstance(spec(), withDeadline(timeoutMs));
      await remove(made.id);
      assert.equal(await provider.getInstance(made.id, withDeadline(timeoutMs)), undefined);
      assert.equal(await provider.deleteInstance(made.id, withDeadline(timeoutMs)), "gone");
      const never = parseInstanceId("never-seen-0001");
      assert.equal(await provider.deleteInstance(never, withDeadline(timeoutMs)), "gone");
      assert.equal(await provider.getInstance(never, withDeadline(timeoutMs)), undefined);
      assert.deepEqual(await provider.listInstances("conformance", withDeadline(timeoutMs)), []);
    });

    it("refuses what it cannot give by naming it, and leaves nothing behind", async () => {
      await assert.rejects(
        provider.createInstance(spec({ gpus: 64 }), withDeadline(timeoutMs)),
        (e: { code?: string; message: string }) => {
          assert.ok(e.code === "invalid_argument" || e.code === "resource_exhausted", String(e.code));
          assert.match(e.message, /gpu/i);
          return true;
        },
      );
      assert.deepEqual(await provider.listInstances("conformance", withDeadline(timeoutMs)), []);
    });

    it("stops waiting when its call ends", async () => {
      const wanted = spec();
      await assert.rejects(provider.createInstance(wanted, { signal: AbortSignal.abort() }));
      // What it may have begun is found by its tag and can be removed.
      const listed = await provider.listInstances("conformance", withDeadline(timeoutMs));
      for (const { id } of listed) await remove(id);
    });

    it("makes the instances of a batch once, however often it is asked, where it makes batches", async (t) => {
      const { batches } = provider;
      if (batches === undefined) return t.skip("it makes VMs one by one");
      const { sandboxId: _, ...wanted } = spec();
      const places = await batches.places(wanted, withDeadline(timeoutMs));
      assert.equal(new Set(places.map((p) => p.key)).size, places.length);
      const request = { class: wanted, count: 3, place: places[0]?.key ?? "", admitted: false };
      const ids = async (from: Provider): Promise<readonly InstanceId[]> => {
        const made = await from.batches?.createInstances(request, withDeadline(timeoutMs));
        return (made ?? []).map((i) => i.id).sort();
      };
      const made = await ids(provider);
      assert.equal(new Set(made).size, 3);
      assert.deepEqual(await ids(provider), made);
      const again = await tested.reopen();
      assert.deepEqual(await ids(again), made);
      await again.close();
      const listed = await provider.listInstances("conformance", withDeadline(timeoutMs));
      const own = listed.filter((i) => i.tags.createOperation === wanted.tags.createOperation);
      assert.deepEqual(own.map((i) => i.id).sort(), made);
      const [first] = made;
      if (first !== undefined) {
        await batches.assign(
          first,
          { name: "podvm-a", sandboxId: newSandboxId(), nodeId: "n" },
          withDeadline(timeoutMs),
        );
      }
      await Promise.all(made.map(remove));
    });

    it("has a console, or says that it has none", async () => {
      const made = await provider.createInstance(spec(), withDeadline(timeoutMs));
      const text = await provider.consoleOutput(made.id, 100, withDeadline(timeoutMs));
      assert.ok(text === undefined || Buffer.byteLength(text) <= 100);
      assert.equal(
        await provider.consoleOutput(parseInstanceId("never-seen-0001"), 100, withDeadline(timeoutMs)),
        undefined,
      );
      await remove(made.id);
    });

    it("says what it would need", async () => {
      const findings = await provider.verify(withDeadline(timeoutMs));
      assert.ok(findings.length > 0);
      for (const f of findings)
        assert.ok(f.state === "ok" || f.state === "warning" || f.remedy !== undefined, `${f.subject} lacks a remedy`);
    });
  });
}

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import type { Fault } from "../../src/base/fault.ts";
import { newSandboxId } from "../../src/base/ids.ts";
import type { BatchCreation, InstanceBatch, InstanceClass, Provider, RequestGate } from "../../src/provider/index.ts";
import { AwsWorld } from "../../test/clouds/ec2/index.ts";

let world: AwsWorld;
let provider: Provider;
beforeEach(async () => {
  world = await AwsWorld.open();
  provider = await world.provider();
});
afterEach(() => world[Symbol.asyncDispose]());

function batches(): BatchCreation {
  assert.ok(provider.batches !== undefined);
  return provider.batches;
}

async function batchOf(count: number, at = 0): Promise<InstanceBatch> {
  const { sandboxId: _, ...spec } = world.spec();
  const wanted: InstanceClass = spec;
  const place = (await batches().places(wanted, background()))[at]?.key ?? "";
  return { class: wanted, count, place, admitted: false };
}

async function faultOf(work: Promise<unknown>): Promise<Fault> {
  let fault: unknown;
  await assert.rejects(work, (e) => {
    fault = e;
    return true;
  });
  return fault as Fault;
}
const made = () => [...world.endpoint.account.instances.values()];

describe("a batch", () => {
  it("is one request, and every instance has the batch's tags", async () => {
    const batch = await batchOf(40);
    world.takeActions();
    const instances = await batches().createInstances(batch, background());
    assert.equal(instances.length, 40);
    assert.equal(world.takeActions().filter((a) => a === "RunInstances").length, 1);
    for (const { tags, addresses } of instances) {
      assert.deepEqual({ ...tags }, batch.class.tags);
      assert.equal(addresses.length, 1);
    }
  });

  it("gets as many as the pool has, and a shortage when that is none", async () => {
    const { pools } = world.endpoint.account.knobs;
    const batch = await batchOf(10);
    const [type = ""] = batch.place.split("/");
    pools.set(`${type}/eu-west-1a`, 4);
    assert.equal((await batches().createInstances(batch, background())).length, 4);
    const fault = await faultOf(batches().createInstances(await batchOf(10), background()));
    assert.equal(fault.context.kind, "capacity");
    assert.equal(made().length, 4);
  });

  it("gives the same instances when it is repeated, also by a new process and without those that have ended", async () => {
    const batch = await batchOf(3);
    world.endpoint.inject({ action: "RunInstances", afterEffect: true, drop: true });
    const first = await batches().createInstances(batch, background());
    assert.equal(made().length, 3);
    provider = await world.provider();
    const again = await batches().createInstances(batch, background());
    assert.deepEqual(again.map((i) => i.id).sort(), first.map((i) => i.id).sort());
    await provider.deleteInstance(first[0]?.id ?? again[0]!.id, background());
    world.clock.advance(60_000);
    const rest = await batches().createInstances(batch, background());
    assert.deepEqual(
      rest.map((i) => i.id).sort(),
      first
        .slice(1)
        .map((i) => i.id)
        .sort(),
    );
    assert.equal(made().length, 3);
  });

  it("goes where it was told, and says what is short by what places share", async () => {
    const places = await batches().places((await batchOf(1)).class, background());
    assert.deepEqual(
      places.slice(0, 3).map((p) => p.text),
      ["c6a.large in eu-west-1a", "c6a.large in eu-west-1b", "c6a.large in eu-west-1c"],
    );
    assert.equal(new Set(places.map((p) => p.scopes.quota)).size, 1);
    assert.equal(new Set(places.map((p) => p.scopes["subnet-full"])).size, 3);
    const second = await batchOf(2, 1);
    await batches().createInstances(second, background());
    assert.deepEqual(new Set(made().map((i) => i.subnet.zone)), new Set(["eu-west-1b"]));
  });

  it("says a quota with its numbers and the remedy", async () => {
    world.endpoint.account.knobs.vcpuQuota.set("Standard/on-demand", 2);
    const fault = await faultOf(batches().createInstances(await batchOf(2), background()));
    assert.equal(fault.context.kind, "quota");
    assert.match(fault.message, /quota of 2 vCPUs for on-demand Standard instances.*raise it in the Service Quotas/);
  });

  it("has its instances named after their sandboxes later", async () => {
    const [instance] = await batches().createInstances(await batchOf(1), background());
    const sandboxId = newSandboxId();
    const assignment = { name: "podvm-web-1", sandboxId, nodeId: "node-1" };
    await batches().assign(instance!.id, assignment, background());
    const tags = made()[0]?.tags;
    assert.deepEqual(
      [tags?.get("Name"), tags?.get("kata-remote:sandbox"), tags?.get("kata-remote:node")],
      ["podvm-web-1", sandboxId, "node-1"],
    );
  });
});

describe("instances that are ended together", () => {
  it("cost one request, and one that EC2 does not know keeps none of the others", async () => {
    const instances = await batches().createInstances(await batchOf(6), background());
    world.takeActions();
    await Promise.all(instances.slice(0, 4).map((i) => provider.deleteInstance(i.id, background())));
    assert.deepEqual(world.takeActions(), ["TerminateInstances"]);
    const unknown = "i-0123456789abcdef0" as (typeof instances)[number]["id"];
    const rest = [...instances.slice(4).map((i) => i.id), unknown];
    assert.deepEqual(await Promise.all(rest.map((id) => provider.deleteInstance(id, background()))), [
      "gone",
      "gone",
      "gone",
    ]);
    assert.ok(made().every((i) => i.endedAt !== undefined));
  });
});

describe("the gate", () => {
  it("is asked before every request with its family and cost, and told what EC2 throttled", async () => {
    const seen: string[] = [];
    const pass = (family: string, instances: number) => ({
      answered: (answer: { kind: string }) => void seen.push(`${family} ${instances} ${answer.kind}`),
    });
    const gate: RequestGate = {
      enter: async (family, { instances }) => pass(family, instances),
      admitted: (family, { instances }) => pass(`admitted ${family}`, instances),
    };
    provider.account?.useGate(gate);
    const batch = await batchOf(5);
    seen.length = 0;
    const error = { code: "RequestLimitExceeded", message: "Request limit exceeded.", status: 503 };
    world.endpoint.inject({ action: "RunInstances", error });
    await batches().createInstances({ ...batch, admitted: true }, background());
    assert.deepEqual(
      seen.filter((s) => s.includes("RunInstances")),
      ["admitted RunInstances 5 throttled", "RunInstances 5 done"],
    );
  });
});

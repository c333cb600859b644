import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { ChaosCase } from "./chaos-case.ts";
import { Ec2Cloud } from "./ec2-cloud.ts";
import { GuestPool } from "./guests.ts";
import { buildPrograms, makeNextVersion } from "./programs.ts";
import { runCase } from "./run-case.ts";
import { World, type WorldDeps } from "./world.ts";

const CALM: ChaosCase = {
  ...{ name: "calm", store: "embedded", hits: [], create: "succeeds", bystander: "runs" },
  boundMs: 3_000,
};

describe("a chaos case", { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "krct-"));
  let deps: WorldDeps;
  before(async () => {
    const vmImage = () => Promise.reject(new Error("no VM here"));
    const program = await buildPrograms(folder);
    const pool = await GuestPool.open(join(folder, "guests"), 1);
    deps = { program, nextProgram: makeNextVersion(program), pool, vmImage };
  });
  after(async () => {
    await deps.pool[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Does something that no fault of the case explains when a step is reached. */
  async function sabotaged(step: string, sabotage: (cloud: Ec2Cloud) => void, chaos = CALM) {
    await using world = await World.open({ ...deps, store: "embedded", cloud: "ec2", adaptors: "one" });
    const { cloud, timeline } = world;
    assert.ok(cloud instanceof Ec2Cloud);
    let left = true;
    timeline.onStep((seen) => {
      if (seen !== step || !left) return;
      left = false;
      sabotage(cloud);
    });
    return (await runCase(world, chaos)).map(({ kind, text }) => `${kind}: ${text}`);
  }

  it("finds nothing where nothing is wrong", async () => {
    assert.deepEqual(await sabotaged("never", () => undefined), []);
  });

  it("finds a VM that is left", async () => {
    const found = await sabotaged("started", ({ endpoint: { account } }) => {
      const [copied] = account.instances.values();
      assert.ok(copied !== undefined);
      // Not ours by its tags, so that nobody of us may remove it.
      account.instances.set("i-0123456789abcdef0", { ...copied, id: "i-0123456789abcdef0", tags: new Map() });
    });
    assert.ok(found.includes("leaked: instance i-0123456789abcdef0"), found.join("\n"));
  });

  it("finds a pod whose VM has gone", async () => {
    const found = await sabotaged("started", (cloud) => void cloud.killNewest(true));
    assert.match(found.join("\n"), /lost: the bystander does not run/);
  });

  it("finds a creation that should have failed", async () => {
    const found = await sabotaged("never", () => undefined, { ...CALM, create: "fails" });
    assert.match(found.join("\n"), /lost: the pod's creation was answered with success/);
  });
});

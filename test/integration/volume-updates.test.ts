import assert from "node:assert/strict";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import { silentLogger } from "../../src/base/silent-log.ts";
import { CopyFileRequest } from "../../src/gen/agent/agent.ts";
import { copyFiles } from "../../src/guest/agent/index.ts";
import { Agent } from "../../src/shim/agent/index.ts";
import { ContainerVolumes, nodeFiles, syncVolume, VolumeWatch } from "../../src/shim/volumes/index.ts";
import type { CallOptions } from "../../src/ttrpc/index.ts";
import { until } from "../e2e/harness/processes.ts";
import { writeVolume } from "../support/kubelet-volume.ts";

const LIMITS = { maxMiB: 64 };

/** The node's half with the guest's file calls, without a VM between them. */
describe("volumes of kubelet's in a guest", () => {
  let folder: string;
  let source: string;
  let guestPath: string;
  let failures: number;
  let calls: number;
  let watch: VolumeWatch;
  let agent: Agent;
  const open: ContainerVolumes[] = [];
  beforeEach(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), "volumes-")));
    source = join(folder, "pods", "u", "volumes", "kubernetes.io~configmap", "c");
    guestPath = join(folder, "guest", "c1-0-c");
    mkdirSync(join(folder, "guest"));
    failures = 0;
    calls = 0;
    agent = new Agent({ caller: guest, timeoutMs: 60_000, createContainerTimeoutMs: 60_000 });
    watch = new VolumeWatch({ log: silentLogger() });
  });
  afterEach(async () => {
    for (const volumes of open.splice(0)) await volumes.stop();
    assert.equal(watch.count, 0);
    rmSync(folder, { recursive: true });
  });

  const guest = {
    async call(service: string, method: string, payload: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
      calls += 1;
      if (failures > 0) {
        failures -= 1;
        throw new Error("the guest is out of reach");
      }
      await new Promise(setImmediate);
      const { signal = background().signal, metadata = [], timeoutMs } = options;
      const call = { signal, metadata, timeoutMs, service, method };
      await copyFiles(join(folder, "guest"), CopyFileRequest.decode(payload), call);
      return new Uint8Array();
    },
  };
  const place = () => ({ field: "mounts[0]", source, destination: "/c", guestPath });

  /** First copy, and following from then on. */
  async function follow(): Promise<ContainerVolumes> {
    const first = await syncVolume(agent, place(), LIMITS, undefined, background());
    return goOn(first?.version ?? assert.fail("it is no volume of kubelet's"));
  }

  function goOn(version: string): ContainerVolumes {
    const life = new AbortController().signal;
    const files = nodeFiles(() => process.pid);
    const deps = { watch, files, agent, limits: LIMITS, life, save: async () => undefined, log: silentLogger() };
    const volumes = new ContainerVolumes([{ ...place(), version }], deps);
    open.push(volumes);
    return volumes;
  }

  const guestNames = (): string[] =>
    readdirSync(guestPath)
      .filter((n) => !n.startsWith(".."))
      .sort();
  const versions = (): string[] => readdirSync(guestPath).filter((n) => /^\.\.\d/.test(n));
  const guestFile = (name: string): string => readFileSync(join(guestPath, name), "utf8");
  const hasCome = (name: string, content: string) =>
    until(
      `${name} to be ${content}`,
      20_000,
      () => readdirSync(guestPath).includes(name) && guestFile(name) === content,
    );

  it("come with modes, follow changes, and lose removed keys", async () => {
    writeVolume(source, { a: "1", b: "1" }, 0o640);
    await follow();
    assert.deepEqual(
      [guestNames(), guestFile("a"), statSync(join(guestPath, "a")).mode & 0o777],
      [["a", "b"], "1", 0o640],
    );
    writeVolume(source, { a: "2", c: "2" });
    await hasCome("c", "2");
    await until("the old version to go", 20_000, () => versions().length === 1);
    assert.deepEqual([guestNames(), guestFile("a")], [["a", "c"], "2"]);
    writeVolume(source, { b: "3" });
    await hasCome("b", "3");
    assert.deepEqual(guestNames(), ["b"]);
  });

  it("of 1,000 files change all at once: no reader sees a mix, open files stay as they were", async () => {
    const files = (content: string) =>
      Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`key-${i}`, content]));
    agent.packFiles();
    writeVolume(source, files("old"));
    await follow();
    assert.ok(calls < 200, `2,000 files and links took ${calls} calls`);
    const held = openSync(join(guestPath, "key-7"), "r");
    writeVolume(source, files("new"));
    let seen = "old";
    await until("the new version", 60_000, () => {
      // One look at the whole: the directory that `..data` leads to now.
      const dir = openSync(join(guestPath, "..data"), "r");
      try {
        const here = `/proc/self/fd/${dir}`;
        const contents = new Set(readdirSync(here).map((n) => readFileSync(`${here}/${n}`, "utf8")));
        assert.equal(contents.size, 1, `a mix: ${[...contents].join()}`);
        seen = [...contents][0] ?? "";
      } catch (e) {
        // Removed while it was read, which is what happens on the node too.
        if ((e as NodeJS.ErrnoException).code !== "ENOENT" && (e as Error).message !== "a mix: ") throw e;
      } finally {
        closeSync(dir);
      }
      return seen === "new";
    });
    assert.equal(readFileSync(held, "utf8"), "old");
    closeSync(held);
  });

  it("are carried on by the next daemon from the version that the guest has", async () => {
    writeVolume(source, { a: "1" });
    const volumes = await follow();
    await volumes.stop();
    writeVolume(source, { b: "2" });
    const [record] = volumes.records;
    goOn(record?.version ?? "");
    await hasCome("b", "2");
    assert.deepEqual(guestNames(), ["b"]);
  });

  it("arrive after the guest was out of reach, and nothing is sent while nothing changes", async () => {
    writeVolume(source, { a: "1" });
    await follow();
    failures = 2;
    writeVolume(source, { a: "2" });
    await hasCome("a", "2");
    await until("the old version to go", 20_000, () => versions().length === 1);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const before = calls;
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(calls, before);
  });

  it("are looked at again where the kernel gives no watch", async (context) => {
    context.mock.timers.enable({ apis: ["setTimeout"] });
    let refused = 0;
    watch = new VolumeWatch({
      log: silentLogger(),
      watch: () => {
        refused += 1;
        throw new Error("ENOSPC");
      },
    });
    let updates = 0;
    const end = watch.follow(source, async () => {
      updates += 1;
      return true;
    });
    context.mock.timers.tick(50);
    await new Promise(setImmediate);
    context.mock.timers.tick(30_000);
    context.mock.timers.tick(50);
    assert.deepEqual([refused, updates], [2, 2]);
    await end();
  });
});

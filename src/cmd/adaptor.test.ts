import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { silentLogger } from "../base/log.ts";
import { loadAdaptorConfig, openAdaptor, openProvider } from "./adaptor.ts";

describe("configuration of the adaptor", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "adaptor-config-"));
  });
  after(() => rm(dir, { recursive: true }));

  async function load(text: string): ReturnType<typeof loadAdaptorConfig> {
    const path = join(dir, "adaptor.toml");
    await writeFile(path, text);
    return loadAdaptorConfig(path);
  }

  it("has a default for every key", async () => {
    const config = await load("");
    assert.equal(config.provider, "local");
    assert.equal(config.grpc.socketPath, "/run/kata-remote/adaptor.sock");
    assert.equal((await load("[rest]\nport = 1\n[vm]\nmemoryMiB = 128")).rest.host, "127.0.0.1");
  });

  it("refuses what it does not know by file, key and problem", async () => {
    const cases: [string, RegExp][] = [
      ['statedir = "/x"', /adaptor\.toml: unknown key "statedir"/],
      ["[limits]\nsandboxes = 0", /limits\.sandboxes/],
      ['[rest]\nport = "80"', /rest\.port/],
      ['cluster = "UPPER"', /cluster/],
      ["provider = ", /not valid TOML/],
    ];
    for (const [text, message] of cases) await assert.rejects(load(text), { code: "invalid_argument", message }, text);
    await assert.rejects(loadAdaptorConfig(join(dir, "none.toml")), { code: "not_found" });
  });

  it("takes REDIS_URL for a store that the file leaves open", async () => {
    const before = process.env.REDIS_URL;
    process.env.REDIS_URL = "redis://from-env:1";
    try {
      assert.deepEqual(((s) => [s.kind, s.url])((await load("")).store), ["redis", "redis://from-env:1"]);
      assert.equal((await load('[store]\nkind = "redis"\ndb = 2')).store.url, "redis://from-env:1");
      assert.equal((await load('[store]\nkind = "redis"\nurl = "redis://file"')).store.url, "redis://file");
      assert.equal((await load('[store]\nkind = "redis"\n[store.cluster]\nnodes = ["a:1"]')).store.url, undefined);
      assert.equal((await load('[store]\nkind = "embedded"')).store.url, undefined);
    } finally {
      if (before === undefined) delete process.env.REDIS_URL;
      else process.env.REDIS_URL = before;
    }
    assert.equal((await load("")).store.kind, before === undefined ? "embedded" : "redis");
  });

  it("refuses an unknown provider with the names of those there are, and a provider's unknown key", async () => {
    const log = silentLogger();
    const unknown = await load('provider = "clouds"');
    await assert.rejects(openProvider(unknown, log), { code: "invalid_argument", message: /"clouds": local/ });
    const wrong = await load('[providers.local]\nimagedir = "/x"');
    await assert.rejects(openProvider(wrong, log), { message: /providers\.local: unknown key "imagedir"/ });
  });

  it("opens and closes adaptor and provider together", async () => {
    const text = [
      `stateDir = "${dir}/state"`,
      `[grpc]\nsocketPath = "${dir}/a.sock"`,
      "[rest]\nport = 0",
      `[providers.local]\nstateDir = "${dir}/vms"\nimageDir = "${dir}/no-image"\ncacheDir = "${dir}"`,
    ].join("\n");
    for (let round = 0; round < 2; round++) {
      const adaptor = await openAdaptor(await load(text), silentLogger());
      assert.equal((await fetch(`${adaptor.restAddress}/readyz`)).status, 200);
      await adaptor.close();
    }
  });
});

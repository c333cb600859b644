import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { checkStorage } from "../../../src/adaptor/index.ts";
import { withDeadline } from "../../../src/base/call.ts";
import type { Fault } from "../../../src/base/fault.ts";
import { StartVmEvent_Stage as Stage } from "../../../src/gen/kataremote/podvm/v1/podvm.ts";
import { CertificateAuthority, makeCsr, newKeyPair } from "../../../src/identity/index.ts";
import { AdaptorUnderTest, adaptorConfig } from "../../fakes/adaptor-under-test.ts";
import { freePort, RedisServer, withoutRedis } from "../../support/redis-server.ts";
import { openRedisStore } from "../../support/redis-store.ts";

const skip = withoutRedis();
const started = async (tested: AdaptorUnderTest) => (await tested.startVm(await tested.createVm())).at(-1)?.stage;

describe("redis behind sentinels", { skip, timeout: 120_000 }, () => {
  it("fails over to the replica: the adaptor follows and knows its sandboxes", async () => {
    const [first, second, watcher] = [await freePort(), await freePort(), await freePort()];
    const bind = ["--bind", "127.0.0.1", "--port"];
    await using primary = await RedisServer.start([...bind, String(first)]);
    await using replica = await RedisServer.start([...bind, String(second), "--replicaof", "127.0.0.1", String(first)]);
    const sentinel = await startSentinel(join(primary.dir, "sentinel"), watcher, first);
    try {
      const client = replica.client();
      const synced = async () => /master_link_status:up/.test(await client.info("replication"));
      const sentinels = { name: "main", nodes: [`127.0.0.1:${watcher}`] };
      await using tested = await AdaptorUnderTest.open({
        config: { store: { kind: "redis", sentinels, timeoutMs: 1_000, leaseMs: 3_000 } },
      });
      await tested.until(async () => (await synced()) || undefined, "the replica follows");
      const id = await tested.createVm();
      assert.equal((await tested.startVm(id)).at(-1)?.stage, Stage.ADDRESS);
      const replicated = async () => (await client.hlen("{kata-remote:test}:sandboxes")) === 1 || undefined;
      await tested.until(replicated, "the replica has it");
      await primary.kill();
      const again = async () => (await started(tested).catch(() => undefined)) === Stage.ADDRESS || undefined;
      await tested.until(again, "a pod starts after the failover", 60_000);
      assert.equal(await tested.phase(id), "booting");
      assert.match(await client.info("replication"), /role:master/);
      client.disconnect();
    } finally {
      const exited = once(sentinel, "exit");
      sentinel.kill("SIGKILL");
      await exited;
    }
  });
});

describe("redis with TLS and ACL", { skip, timeout: 60_000 }, () => {
  it("serves an adaptor whose user may touch its own keys only", async () => {
    const port = await freePort();
    await using redis = await RedisServer.start();
    const { server, client } = await tlsFiles(redis.dir);
    await redis.kill();
    await using secure = await RedisServer.start([
      ...["--tls-port", String(port), "--bind", "127.0.0.1", "--tls-auth-clients", "yes"],
      ...["--tls-cert-file", server.certFile, "--tls-key-file", server.keyFile, "--tls-ca-cert-file", server.caFile],
    ]);
    const admin = secure.client();
    // As README.md says it.
    await admin.acl("SETUSER", "kata-remote", "on", ">s:e@c/ret", "~{kata-remote:test}:*", "&*", ...ACL_RULES);
    await admin.acl("SETUSER", "default", "off");
    admin.disconnect();
    const passwordFile = join(redis.dir, "password");
    await writeFile(passwordFile, "s:e@c/ret\n");
    const store = {
      kind: "redis",
      url: `rediss://127.0.0.1:${port}`,
      username: "kata-remote",
      passwordFile,
      tls: client,
    };
    await using tested = await AdaptorUnderTest.open({ config: { store } });
    assert.equal(await started(tested), Stage.ADDRESS);
    const found = await checkStorage(tested.config, withDeadline(5_000));
    assert.deepEqual(
      found.map((f) => f.state),
      ["ok", "ok", "ok", "ok"],
      JSON.stringify(found),
    );

    await writeFile(passwordFile, "wrong");
    const refused = await checkStorage(tested.config, withDeadline(5_000));
    assert.equal(refused[0]?.state, "error");
    assert.match(refused[0]?.detail ?? "", /WRONGPASS/);
    const untrusting = { ...store, tls: {}, timeoutMs: 500 };
    const opening = openRedisStore({ config: untrusting, dir: join(redis.dir, "x") });
    await assert.rejects(opening, (e: Fault) => {
      assert.match(e.fullMessage, /certificate/);
      assert.doesNotMatch(e.fullMessage, /s:e@c/);
      return e.code === "unavailable";
    });
  });
});

/** Everything but administration, and of that what tells whether this Redis keeps what it acknowledges. */
const ACL_RULES = ["+@all", "-@admin", "-@dangerous", "+info", "+config|get"];

describe("what `kata-remote check` says of redis", { skip, timeout: 60_000 }, () => {
  const check = (redis: RedisServer) =>
    checkStorage(adaptorConfig(redis.dir, { store: { kind: "redis", url: redis.url } }), withDeadline(5_000));

  it("is fine for one that keeps what it acknowledges", async () => {
    await using redis = await RedisServer.start();
    assert.deepEqual(
      (await check(redis)).map((f) => [f.subject, f.state]),
      [
        ["redis version", "ok"],
        ["redis persistence", "ok"],
        ["redis eviction", "ok"],
        ["redis role", "ok"],
      ],
    );
  });

  it("names what loses records, with the remedy", async () => {
    const cases: [string[], string, RegExp, RegExp][] = [
      [["--appendfsync", "everysec"], "redis persistence", /everysec/, /CONFIG SET appendfsync always/],
      [["--appendonly", "no"], "redis persistence", /append-only file is off/, /appendonly yes/],
      [["--maxmemory-policy", "allkeys-lru"], "redis eviction", /allkeys-lru/, /noeviction/],
    ];
    for (const [options, subject, detail, remedy] of cases) {
      await using redis = await RedisServer.start(options);
      const [bad, ...others] = (await check(redis)).filter((f) => f.state !== "ok");
      assert.deepEqual(others, []);
      assert.equal(bad?.subject, subject);
      assert.match(bad.detail, detail);
      assert.match(bad.remedy ?? "", remedy);
    }
  });

  it("is an error with the address when there is none", async () => {
    await using redis = await RedisServer.start();
    await redis.kill();
    const [finding] = await check(redis);
    assert.equal(finding?.state, "error");
    assert.match(finding.detail, /redis\.sock/);
  });
});

async function startSentinel(dir: string, port: number, primary: number): Promise<ChildProcess> {
  await mkdir(dir);
  const file = join(dir, "sentinel.conf");
  const lines = [
    `port ${port}`,
    "bind 127.0.0.1",
    `dir ${dir}`,
    `sentinel monitor main 127.0.0.1 ${primary} 1`,
    "sentinel down-after-milliseconds main 500",
    "sentinel failover-timeout main 5000",
  ];
  await writeFile(file, lines.join("\n"));
  const child = spawn("redis-server", [file, "--sentinel"], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return child;
}

interface TlsFiles {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

async function tlsFiles(dir: string): Promise<{ server: TlsFiles; client: TlsFiles }> {
  const ca = await CertificateAuthority.open(join(dir, "ca"));
  const caFile = join(dir, "ca.pem");
  await writeFile(caFile, ca.caPem);
  const files = async (name: string, sign: (csrPem: string) => Promise<string>): Promise<TlsFiles> => {
    const { keyPem } = newKeyPair();
    const [certFile, keyFile] = [join(dir, `${name}.crt`), join(dir, `${name}.key`)];
    await writeFile(certFile, await sign(makeCsr(keyPem, "")));
    await writeFile(keyFile, keyPem);
    return { caFile, certFile, keyFile };
  };
  return {
    server: await files("server", (csr) => ca.signServer(csr, ["127.0.0.1"])),
    client: await files("client", (csr) => ca.signNode(csr, "node-1")), // any certificate for clients
  };
}

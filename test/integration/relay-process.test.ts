import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { constants, existsSync, openSync, readFileSync } from "node:fs";
import { connect, Socket } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { background } from "../../src/base/call.ts";
import { silentLogger } from "../../src/base/log.ts";
import { findRelays, startRelay } from "../../src/node/index.ts";
import { RelayClient } from "../../src/relay/index.ts";
import { TtrpcClient } from "../../src/ttrpc/index.ts";
import type { RelayDaemonOptions } from "../fakes/relay-daemon.ts";
import { repositoryRoot } from "../lint/imports.ts";
import { RelayFixture } from "../support/relay-fixture.ts";
import { StubGuest } from "../support/stub-guest.ts";

const ROOT = repositoryRoot(import.meta.dirname);
const BYTES = 12 << 20;

describe("a relay in a process of its own", () => {
  it("holds guest, stream, exit and containerd's call over the kill -9 of its daemon, which it starts again", async () => {
    await using fixture = await RelayFixture.create();
    const guest = await StubGuest.start(fixture.ca.caPem);
    const log = silentLogger();
    const settings = { keepAliveMs: 60_000, keepAliveDeadlineMs: 1_000, orphanAfterMs: 4_000, logLevel: "warn" };
    const command = (dir: string): string[] => [process.execPath, join(ROOT, "src/cmd/relay.ts"), dir];
    const first = await startRelay({ runDir: fixture.dir, log, settings, command, env: process.env }, background());
    const { pid, dir } = first;
    await first.handOver();
    const data = randomBytes(BYTES);
    guest.output = { stdout: data, stderr: Buffer.alloc(0) };
    guest.chunkBytes = 64 * 1024;
    guest.beforeRead = () => delay(2);
    const out = join(fixture.dir, "out");
    execFileSync("mkfifo", [out]);
    const door = join(fixture.dir, "door.sock");
    const again = join(fixture.dir, "started-again");
    const { sign: _sign, onStage: _onStage, ...spec } = fixture.spec(guest.port);
    const key = `${fixture.sandboxId}/c1/c1`;
    const names = { key, sandboxId: fixture.sandboxId, containerId: "c1", execId: "c1" };
    const options: RelayDaemonOptions = {
      ...{ dir, caDir: join(fixture.dir, "ca"), door, guest: spec },
      restart: ["touch", again],
      stdio: { ...names, terminal: false, stdin: "", stdout: out, stderr: "" },
    };
    const daemon = spawn(process.execPath, [join(ROOT, "test/fakes/relay-daemon.ts"), JSON.stringify(options)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    assert.equal(String((await once(daemon.stdout, "data"))[0]), "attached\n");
    const hash = createHash("sha256");
    let bytes = 0;
    const reader = new Socket({ fd: openSync(out, constants.O_RDWR | constants.O_NONBLOCK) });
    reader.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      hash.update(chunk);
    });
    const containerd = new TtrpcClient(connect(door));
    const waiting = containerd.call("containerd.task.v2.Task", "Wait", Buffer.from("w"));
    while (bytes < BYTES / 4) await delay(5);
    assert.ok(bytes < BYTES, "it is killed in the middle of the stream");
    daemon.kill("SIGKILL");
    await once(daemon, "exit");
    while (!existsSync(again)) await delay(20);
    while (bytes < BYTES) await delay(20);
    reader.destroy();
    assert.equal(hash.digest("hex"), createHash("sha256").update(data).digest("hex"));
    guest.exit.resolve(7);

    const [second, ...more] = await findRelays(fixture.dir, log, background());
    assert.ok(second !== undefined && more.length === 0);
    assert.equal(second.pid, pid);
    const held = await second.held(background());
    assert.deepEqual([...held.guests.keys()], [fixture.sandboxId]);
    assert.equal(held.taskKeys.size, 1);
    await second.onTaskRequest(async ({ method, payload }) => ({
      ok: true,
      payload: Buffer.from(`${method} ${Buffer.from(payload)}`),
    }));
    assert.equal(Buffer.from(await waiting).toString(), "Wait w");
    assert.equal((await second.processExit(key, background())).status, 7);
    containerd.close();

    // Its daemon never comes back: it gives its guests up, and ends.
    await second.handOver();
    while (existsSync(`/proc/${pid}`) && !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ")) await delay(50);
    await assert.rejects(RelayClient.connect(dir, { log }, background()), { code: "unavailable" });
    assert.deepEqual(await findRelays(fixture.dir, log, background()), []);
    await guest.close();
  });
});

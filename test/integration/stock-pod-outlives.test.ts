import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { createAdaptor } from "../../src/adaptor/index.ts";
import { background } from "../../src/base/call.ts";
import { silentLogger } from "../../src/base/log.ts";
import { ReadStreamRequest, ReadStreamResponse, WaitProcessResponse } from "../../src/gen/agent/agent.ts";
import { startRelay } from "../../src/node/index.ts";
import { adaptorConfig } from "../fakes/adaptor-under-test.ts";
import { ForwarderProvider } from "../fakes/forwarder-provider.ts";
import type { StockDaemonOptions } from "../fakes/stock-daemon.ts";
import { repositoryRoot } from "../lint/imports.ts";
import { WireClient } from "../protocol/shim-wire.ts";
import {
  AGENT,
  createVm,
  HEALTH,
  HYPERVISOR,
  newShimId,
  POD_NETNS,
  socketOf,
  startVm,
  stopVm,
} from "../protocol/world.ts";

const ROOT = repositoryRoot(import.meta.dirname);
const CHUNK = 8 << 10;
const NOTHING = new Uint8Array();

/** Waits, with what it waits for in the error. */
async function until(what: string, check: () => boolean): Promise<void> {
  for (const end = performance.now() + 20_000; !check(); await delay(10))
    assert.ok(performance.now() < end, `never: ${what}`);
}

describe("a pod of a stock shim", { timeout: 90_000 }, () => {
  it("outlives the kill -9 of its node daemon: its shim's connection, a wait and a stream go on", async () => {
    const dir = await mkdtemp(join(tmpdir(), "so-"));
    const log = silentLogger();
    const provider = new ForwarderProvider();
    const adaptor = createAdaptor(adaptorConfig(dir), { provider, log });
    await adaptor.start();
    await mkdir(join(dir, "run"), { recursive: true });
    const settings = { keepAliveMs: 60_000, keepAliveDeadlineMs: 1_000, orphanAfterMs: 10_000, logLevel: "warn" };
    const command = (relayDir: string): string[] => [process.execPath, join(ROOT, "src/cmd/relay.ts"), relayDir];
    const relay = await startRelay(
      { runDir: join(dir, "run"), log, settings, command, env: process.env },
      background(),
    );
    await relay.handOver();
    const stock = { socket: join(dir, "h.sock"), podsDir: join(dir, "p") };
    const daemons: ChildProcess[] = [];
    const startDaemon = async (): Promise<ChildProcess> => {
      const options: StockDaemonOptions = { dir, relayDir: relay.dir, stock, netns: POD_NETNS };
      const daemon = spawn(process.execPath, [join(ROOT, "test/fakes/stock-daemon.ts"), JSON.stringify(options)], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      daemons.push(daemon);
      assert.equal(String((await once(daemon.stdout, "data"))[0]), "serving\n");
      return daemon;
    };
    try {
      const first = await startDaemon();
      const id = newShimId();
      const shim = await WireClient.dial(stock.socket);
      const path = socketOf(await shim.call(HYPERVISOR, "CreateVM", createVm(id)));
      const started = await shim.call(HYPERVISOR, "StartVM", startVm(id));
      assert.equal(started.code, 0, started.message);
      const agent = await WireClient.dial(path);
      const { forwarder } = provider.only;
      const exit = Promise.withResolvers<number>();
      let sent = 0;
      let ended = false;
      forwarder.answers.set("WaitProcess", async () =>
        WaitProcessResponse.encode({ status: await exit.promise }).finish(),
      );
      forwarder.answers.set("ReadStdout", async () => {
        await delay(5);
        if (ended) return NOTHING;
        const data = Buffer.alloc(CHUNK, sent++ % 251);
        return ReadStreamResponse.encode({ data }).finish();
      });
      const waiting = agent.call(AGENT, "WaitProcess", NOTHING);
      let read = 0;
      const reading = (async () => {
        for (;;) {
          const request = ReadStreamRequest.encode({ containerId: "c", execId: "e", len: CHUNK }).finish();
          const reply = await agent.call(AGENT, "ReadStdout", request);
          assert.equal(reply.code, 0, reply.message);
          const { data } = ReadStreamResponse.decode(reply.payload);
          if (data.length === 0) return;
          for (const byte of [data[0], data.at(-1)]) assert.equal(byte, Math.floor(read / CHUNK) % 251);
          read += data.length;
        }
      })();
      await until("the stream flows", () => read > 5 * CHUNK);
      first.kill("SIGKILL");
      await once(first, "exit");
      const before = read;
      await until("it flows without a daemon", () => read > before + 20 * CHUNK);

      await startDaemon();
      const after = read;
      await until("and with the next one", () => read > after + 20 * CHUNK);
      // A shim that dials again finds its pod; one that asks for it gets the same socket.
      const again = await WireClient.dial(stock.socket);
      assert.equal(socketOf(await again.call(HYPERVISOR, "CreateVM", createVm(id))), path);
      assert.equal((await again.call(HYPERVISOR, "StartVM", startVm(id))).code, 0);
      const second = await WireClient.dial(path);
      assert.equal((await second.call(HEALTH, "Check", NOTHING)).code, 0);
      ended = true;
      await reading;
      assert.equal(read, sent * CHUNK, "every byte once");
      exit.resolve(37);
      assert.equal(WaitProcessResponse.decode((await waiting).payload).status, 37);
      assert.equal(forwarder.requests.filter((r) => r.method === "WaitProcess").length, 1);
      assert.equal(provider.created, 1);

      assert.equal((await again.call(HYPERVISOR, "StopVM", stopVm(id))).code, 0);
      await until("VM gone", () => provider.machines.size === 0);
      await until("its directory gone", () => !existsSync(join(stock.podsDir, id)));
      await until("its shim's connections closed", () => agent.closed && second.closed);
      for (const client of [shim, again]) client.close();
    } finally {
      for (const daemon of daemons) daemon.kill("SIGKILL");
      process.kill(relay.pid);
      await adaptor.close();
      await provider.close();
      await rm(dir, { recursive: true, force: true });
    }
  });
});

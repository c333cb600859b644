import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { RedisServer, withoutRedis } from "../support/redis-server.ts";
import { RUNTIME } from "./harness/containerd.ts";
import { BUSYBOX } from "./harness/images.ts";
import { signal, until } from "./harness/processes.ts";
import { World } from "./harness/world.ts";

/** A guest under emulation sends 0.2 to 8 MB/s, as other load lets it: 100 were sent by hand. */
const STREAM_MB = Number(process.env.KATA_REMOTE_TEST_STREAM_MB ?? 12);
/** A guest under emulation that shares its processors with other tests. */
const SLOWEST_BYTES_PER_S = 50_000;

describe("while an exec streams", () => {
  let redis: RedisServer | undefined;
  let world: World;
  before(async () => {
    if (withoutRedis() === false) redis = await RedisServer.start();
    world = await World.start(redis === undefined ? {} : { redisUrl: redis.url });
    await world.containerd.ctr(["run", "-d", "--runtime", RUNTIME, BUSYBOX, "box", "sleep", "100000"]);
  });
  after(async () => {
    try {
      await world.containerd.endTask("box");
      await world.untilNoVm(); // the adaptor that close() ends would leave it to the next one
      await world.close();
    } finally {
      await redis?.[Symbol.asyncDispose]();
    }
  });

  it(`adaptor, node daemon and Redis are killed in turn: ${STREAM_MB} MB arrive unchanged, containerd sees no exit`, async () => {
    const events = world.containerd.startCtr(["events"], { timeoutMs: 1_200_000 });
    const bytes = STREAM_MB * 1_000_000;
    // 10-byte lines that count up: a byte that is lost, doubled or moved changes the sum.
    const lines = bytes / 10;
    const program = `exec seq 100000000 ${100_000_000 + lines - 1}`;
    const args = ["task", "exec", "--exec-id", "stream", "box", "sh", "-c", program];
    const stream = world.containerd.startCtr(args, { timeoutMs: 60_000 + (bytes / SLOWEST_BYTES_PER_S) * 1_000 });
    const hash = createHash("sha256");
    let seen = 0;
    let allowed = bytes / 4;
    stream.child.stdout?.on("data", (text: string) => {
      hash.update(text);
      seen += text.length;
      // However fast the guest is, the stream must not be over before the last kill.
      if (seen >= allowed && allowed < bytes) stream.child.stdout?.pause();
    });
    const allow = (quarters: number): void => {
      allowed = (bytes / 4) * quarters;
      stream.child.stdout?.resume();
    };
    const flows = async (what: string): Promise<void> => {
      const before = seen;
      await until(`the stream to flow after ${what}`, 120_000, () => seen > before || seen === bytes);
    };
    await flows("its start");
    const kills: [string, () => Promise<void>][] = [
      [
        "the adaptor",
        async () => {
          await world.stopAdaptor("SIGKILL");
          await world.startAdaptor();
        },
      ],
      [
        "the node daemon",
        async () => {
          const daemon = world.daemonPid();
          assert.ok(daemon !== undefined);
          signal(daemon, "SIGKILL");
          await until("the next daemon", 60_000, () => ![undefined, daemon].includes(world.daemonPid()));
        },
      ],
      [
        "Redis",
        async () => {
          await redis?.kill();
          await redis?.restart();
        },
      ],
    ];
    for (const [round, [what, kill]] of kills.entries()) {
      await kill();
      allow(round + 2);
      await flows(`the end of ${what}`);
    }
    const { code, stderr } = await stream.done;
    assert.deepEqual({ code, stderr, seen }, { code: 0, stderr: "", seen: bytes });
    const expected = createHash("sha256");
    for (let at = 0; at < lines; at += 10_000) {
      let part = "";
      for (let i = at; i < Math.min(lines, at + 10_000); i++) part += `${100_000_000 + i}\n`;
      expected.update(part);
    }
    assert.equal(hash.digest("hex"), expected.digest("hex"));
    assert.equal(await world.containerd.taskStatus("box"), "RUNNING");
    const exits = events
      .output()
      .split("\n")
      .filter((line) => line.includes("/tasks/exit"));
    events.child.kill();
    assert.deepEqual(
      exits.filter((line) => !line.includes("stream")),
      [],
    );
  });
});

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, describe, it } from "node:test";
import { CTR_ENV, RUNTIME } from "./harness/containerd.ts";
import { BUSYBOX } from "./harness/images.ts";
import { until } from "./harness/processes.ts";
import { hashThrough } from "./harness/run-command.ts";
import { World } from "./harness/world.ts";

const MIB = 1 << 20;
const STREAM_BYTES = 50 * MIB;

describe("a running task", () => {
  let world: World;
  before(async () => {
    world = await World.start();
    await world.containerd.ctr(["run", "-d", "--runtime", RUNTIME, BUSYBOX, "box", "sleep", "100000"]);
  });
  after(async () => {
    await world.containerd.endTask("box");
    await world.close();
  });

  const exec = (execId: string, ...command: string[]) =>
    world.containerd.tryCtr(["task", "exec", "--exec-id", execId, "box", ...command]);

  it("gives an exec's exit code and both of its streams", async () => {
    const outcome = await exec("e1", "sh", "-c", "echo a; echo b >&2; exit 5");
    assert.deepEqual(outcome, { code: 5, stdout: "a\n", stderr: "b\n" });
  });

  it("has the resource limits of its spec", async () => {
    // ctr's default; the guest's own is higher.
    assert.equal((await exec("limits", "sh", "-c", "ulimit -n")).stdout, "1024\n");
  });

  it("gives its output to a logger program", async () => {
    const logger = join(world.folder, "logger");
    const script = 'exec 5>&-; cat <&3 > "$2.out" & cat <&4 > "$2.err"; wait; env | grep CONTAINER > "$2.env"';
    writeFileSync(logger, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const to = join(world.folder, "logged");
    const uri = `binary://${logger}?to=${to}`;
    const program = ["sh", "-c", "echo out; echo err >&2"];
    await world.containerd.ctr(["run", "-d", "--runtime", RUNTIME, "--log-uri", uri, BUSYBOX, "logs", ...program]);
    await until("the logger to end", 60_000, () => existsSync(`${to}.env`) && readFileSync(`${to}.env`).length > 0);
    assert.equal(readFileSync(`${to}.out`, "utf8") + readFileSync(`${to}.err`, "utf8"), "out\nerr\n");
    assert.match(readFileSync(`${to}.env`, "utf8"), /CONTAINER_NAMESPACE=default/);
    await world.containerd.endTask("logs");
  });

  it("gives 128+n when a signal ended an exec", async () => {
    assert.equal((await exec("e2", "sh", "-c", "kill -TERM $$; sleep 5")).code, 143);
  });

  it("carries 50 MB in and 50 MB out of an exec, unchanged", async () => {
    const hash = createHash("sha256");
    let sent = 0;
    const input = new Readable({
      read(): void {
        if (sent >= STREAM_BYTES) return void this.push(null);
        const chunk = randomBytes(MIB);
        hash.update(chunk);
        sent += chunk.length;
        this.push(chunk);
      },
    });
    const args = world.containerd.ctrArgs(["task", "exec", "--exec-id", "pipe", "box", "cat"]);
    const back = await hashThrough("ctr", args, { env: CTR_ENV, input, timeoutMs: 240_000 });
    assert.equal(back.code, 0, back.stderr);
    assert.equal(back.bytes, STREAM_BYTES);
    assert.equal(back.sha256, hash.digest("hex"));
  });

  it("closes an exec's stdin when its giver does", async () => {
    const args = ["task", "exec", "--exec-id", "count", "box", "wc", "-c"];
    const { code, stdout } = await world.containerd.tryCtr(args, { input: "x".repeat(70_001) });
    assert.equal(code, 0);
    assert.equal(stdout.trim(), "70001");
  });

  it("lists its processes", async () => {
    const lines = (await world.containerd.ctr(["task", "ps", "box"])).trim().split("\n");
    assert.ok(lines.length >= 2, lines.join());
    assert.match(lines[1] ?? "", /^[1-9]\d*/);
  });

  it("pauses and resumes", async () => {
    const { containerd } = world;
    const busy = containerd.startCtr([
      "task",
      "exec",
      "--exec-id",
      "busy",
      "box",
      "sh",
      "-c",
      "while :; do date +%s; sleep 1; done",
    ]);
    await until("the exec to write", 60_000, () => busy.output() !== "");
    await containerd.ctr(["task", "pause", "box"]);
    assert.equal(await containerd.taskStatus("box"), "PAUSED");
    const before = busy.output();
    await until("a pause of 3 s", 60_000, pauseOf(3000));
    assert.ok(busy.output().length - before.length <= 11, "at most the line that was under way");
    await containerd.ctr(["task", "resume", "box"]);
    assert.equal(await containerd.taskStatus("box"), "RUNNING");
    const paused = busy.output().length;
    await until("the exec to go on", 60_000, () => busy.output().length > paused);
    await containerd.ctr(["task", "kill", "--exec-id", "busy", "-s", "SIGKILL", "box"]);
    assert.equal((await busy.done).code, 137);
  });

  it("shows metrics of the guest's container in the host's cgroup version", async () => {
    const metrics: unknown = JSON.parse(await world.containerd.ctr(["task", "metrics", "--format", "json", "box"]));
    const text = JSON.stringify(metrics);
    const version2 = existsSync("/sys/fs/cgroup/cgroup.controllers");
    assert.match(text, version2 ? /"usage_usec":"?[1-9]/ : /"total":"?[1-9]/, text);
    assert.match(text, version2 ? /"usage":"?[1-9]/ : /"memory":\{.*"usage":\{.*"usage":"?[1-9]/, text);
  });
});

function pauseOf(ms: number): () => boolean {
  const end = Date.now() + ms;
  return () => Date.now() >= end;
}

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, before, describe, it } from "node:test";
import { RUNTIME } from "./harness/containerd.ts";
import { BUSYBOX } from "./harness/images.ts";
import { until } from "./harness/processes.ts";
import { must, start } from "./harness/run-command.ts";
import { World } from "./harness/world.ts";

describe("a container with a terminal", () => {
  let world: World;
  before(async () => {
    world = await World.start();
  });
  after(() => world.close());

  it("has the size of the terminal outside, follows it, and passes keys and exit code", async () => {
    const ttyFile = join(world.folder, "tty");
    const ctr = [
      "ctr",
      ...world.containerd.ctrArgs(["run", "-t", "--rm", "--runtime", RUNTIME, BUSYBOX, "term", "sh"]),
    ];
    const inner = `stty rows 31 cols 101; tty > ${ttyFile}; exec ${ctr.join(" ")}`;
    const keys = new PassThrough();
    const terminal = start("script", ["-qec", inner, "/dev/null"], { input: keys, timeoutMs: 120_000 });
    const shown = (what: RegExp) =>
      until(
        `the terminal to show ${what}`,
        60_000,
        () => what.test(terminal.output()),
        () => terminal.output(),
      );
    await shown(/# /);
    keys.write("tty; test -t 0 && test -t 1 && test -t 2 && echo is-a-tty\n");
    await shown(/\/dev\/pts\/\d+[\s\S]*is-a-tty/);
    keys.write("stty size\n");
    await shown(/\b31 101\b/);
    assert.ok(existsSync(ttyFile));
    await must("stty", ["-F", readFileSync(ttyFile, "utf8").trim(), "rows", "52", "cols", "133"]);
    // The new size travels on its own; ask until it is there.
    await until("the new size", 60_000, () => {
      keys.write("stty size\n");
      return /\b52 133\b/.test(terminal.output());
    });
    keys.write("sleep 1000\n");
    await shown(/sleep 1000/);
    keys.write("\u0003"); // Ctrl-C
    keys.write("echo after-$((40+2))\n");
    await shown(/after-42/);
    keys.write("exit 9\n");
    assert.equal((await terminal.done).code, 9);
  });
});

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);

describe("the run directory's lock", () => {
  it("is taken by starting anew, once, and kept from children and other daemons", async () => {
    const dir = await mkdtemp(join(tmpdir(), "lock-"));
    try {
      const program = join(dir, "program.ts");
      await writeFile(
        program,
        `import { spawn } from "node:child_process";
        import { ensureLock } from ${JSON.stringify(join(import.meta.dirname, "lock.ts"))};
        const argv = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
        const before = process.env.TURN ?? "0";
        const env = { ...process.env, TURN: String(Number(before) + 1) };
        await ensureLock({ runDir: process.argv[2], argv, env }, { signal: new AbortController().signal });
        // A child that outlives us must not keep the lock.
        spawn("sleep", ["1"], { stdio: "ignore", detached: true }).unref();
        console.log(process.pid, before, process.argv.slice(2).join(" "));
        process.stdin.on("data", () => process.exit()).resume();`,
      );
      const daemon = spawn(process.execPath, [program, dir, "two words"], { stdio: ["pipe", "pipe", "inherit"] });
      const [said] = (await once(daemon.stdout.setEncoding("utf8"), "data")) as [string];
      assert.equal(said.trim(), `${daemon.pid} 1 ${dir} two words`);
      await assert.rejects(run("flock", ["--nonblock", join(dir, "node.lock"), "true"]));
      await assert.rejects(run(process.execPath, [program, dir]), /another node daemon runs/);
      daemon.stdin.end("x");
      await once(daemon, "exit");
      await run("flock", ["--nonblock", join(dir, "node.lock"), "true"]);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ROOT } from "../harness/containerd.ts";
import { processesOf, signal, until } from "../harness/processes.ts";
import { type Outcome, run } from "../harness/run-command.ts";

describe("the services of docker-compose.yml, without Docker", { timeout: 900_000 }, () => {
  let folder: string;
  let up: ChildProcess;
  let output = "";
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "kr-"));
    mkdirSync(join(folder, "d"));
    up = spawn(process.execPath, [join(ROOT, "deploy/compose/up.ts"), "--dir", join(folder, "d")], {
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    for (const stream of [up.stdout, up.stderr]) stream?.on("data", (data: Buffer) => (output += data.toString()));
    await until(
      "the services to be ready",
      600_000,
      () => {
        if (up.exitCode !== null) throw new Error(`up.ts ended with ${up.exitCode}: ${output}`);
        return output.includes("ready:");
      },
      () => output,
    );
  });
  after(async () => {
    if (up.exitCode === null) {
      up.kill("SIGTERM");
      await once(up, "exit");
    }
    const left = processesOf(folder);
    for (const { pid } of left) signal(pid, "SIGKILL");
    rmSync(folder, { recursive: true, force: true });
    assert.deepEqual(left, []);
  });

  /** As the command line that up.ts prints. */
  function inVm(...command: string[]): Promise<Outcome> {
    const [, line = ""] = /^ready: .*\n +(\S.*)$/m.exec(output) ?? [];
    const [settings, script] = [line.match(/KR_\w+=\S+/g) ?? [], line.match(/\S+service\.sh/)?.[0] ?? ""];
    const env = Object.fromEntries(settings.map((s) => [s.slice(0, s.indexOf("=")), s.slice(s.indexOf("=") + 1)]));
    return run(script, ["run", ...command], { env: { ...process.env, ...env }, timeoutMs: 240_000 });
  }
  const log = (name: string): string => readFileSync(join(folder, "d", `${name}.log`), "utf8");

  it("run a container in a VM of the EC2 endpoint", async () => {
    const { code, stdout, stderr } = await inVm("sh", "-c", "uname -r; exit 5");
    assert.equal(code, 5, stderr + stdout);
    assert.notEqual(stdout.split("\n")[0], release());
  });

  it("go on when one of the two adaptors is killed", async () => {
    const [adaptor] = processesOf(join(folder, "d", "adaptor-1")).filter((p) => p.command.includes("kata-remote.mjs"));
    assert.ok(adaptor !== undefined);
    signal(adaptor.pid, "SIGKILL");
    await until("its end to be told", 20_000, () => output.includes("adaptor-1: ended"));
    const { code, stdout, stderr } = await inVm("echo", "by the other one");
    assert.equal(stdout, "by the other one\n", stderr);
    assert.equal(code, 0);
    assert.match(log("adaptor-2"), /"msg":"sandbox prepared"/);
  });
});

import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Call } from "../../src/base/call.ts";
import { ROOT } from "../e2e/harness/containerd.ts";
import { processesOf, signal, until } from "../e2e/harness/processes.ts";
import { must, run } from "../e2e/harness/run-command.ts";
import { benchTtrpc, type TtrpcBenchResult } from "./ttrpc.ts";

/** What the measurements of one run share, and the last broom behind them. */
export class BenchScope {
  /** Everything that is started lives below, or has it in its command line or environment. Short, for unix sockets. */
  readonly folder = mkdtempSync(join(tmpdir(), "krb-"));
  /** Name of this run's network namespace and, with a letter behind it, of its host interface. */
  readonly network = `krb${randomBytes(4).toString("hex")}`;
  /** Ends with Ctrl-C. */
  readonly call: Call;
  #installed: Promise<string> | undefined;
  #ttrpc: Promise<TtrpcBenchResult> | undefined;

  constructor(call: Call) {
    this.call = call;
  }

  /** What is being done, for whoever watches; results go to standard output, this does not. */
  say(text: string): void {
    process.stderr.write(`bench: ${text}\n`);
  }

  /** Directory `bin` of a build of its own, which nobody replaces while it runs. */
  bin(): Promise<string> {
    this.#installed ??= this.#install();
    return this.#installed;
  }

  /** Bare ttrpc between two processes: what figures about RPC are a ratio to. Measured once. */
  ttrpc(): Promise<TtrpcBenchResult> {
    if (this.#ttrpc === undefined) this.say("bare ttrpc between two processes");
    this.#ttrpc ??= benchTtrpc();
    return this.#ttrpc;
  }

  /**
   * Ends and removes whatever is still there, and says what that was. The measurements clean up behind themselves:
   * something left means that one of them was cut short or has a fault.
   */
  async close(): Promise<readonly string[]> {
    const left = processesOf(this.folder);
    for (const { pid } of left) signal(pid, "SIGKILL");
    await until("killed processes to end", 10_000, () => processesOf(this.folder).length === 0);
    for (const line of readFileSync("/proc/mounts", "utf8").split("\n").reverse()) {
      const target = line.split(" ")[1];
      if (target?.startsWith(`${this.folder}/`)) await run("umount", ["-l", target]);
    }
    if (existsSync(`/run/netns/${this.network}`)) await run("ip", ["netns", "delete", this.network]);
    rmSync(this.folder, { recursive: true, force: true });
    return left.map((p) => `${p.pid} ${p.command.slice(0, 120)}`);
  }

  async #install(): Promise<string> {
    this.say("building a private dist/");
    const prefix = join(this.folder, "dist");
    await must(process.execPath, [join(ROOT, "deploy", "build.ts"), "--out", prefix]);
    symlinkSync(process.execPath, join(prefix, "lib", "kata-remote", "node"));
    return join(prefix, "bin");
  }
}

import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Usage } from "./target.ts";

const START_MS = 30_000;
const USAGE_MS = 20_000;
const END_MS = 5_000;

/** A server under attack in a process of its own, with a folder that goes with it. */
export class TargetProcess {
  readonly folder: string;
  readonly #child: ChildProcess;
  #ended: string | undefined;

  private constructor(script: string, args: readonly string[]) {
    this.folder = mkdtempSync(join(tmpdir(), "fuzz-"));
    const log = openSync(join(this.folder, "log"), "a");
    this.#child = fork(join(import.meta.dirname, script), [this.folder, ...args], {
      execArgv: ["--expose-gc"],
      stdio: ["ignore", log, log, "ipc"],
      detached: true, // a Ctrl-C ends the run, which then ends this
    });
    this.#child.once("exit", (code, signal) => {
      this.#ended = `exit ${code ?? signal}; ${readFileSync(join(this.folder, "log"), "utf8").slice(-3000)}`;
    });
  }

  /** @returns the process and what it said when it was ready */
  static async start<Ready>(script: string, args: readonly string[] = []): Promise<[TargetProcess, Ready]> {
    const target = new TargetProcess(script, args);
    return [target, (await target.#answer(START_MS)) as Ready];
  }

  async usage(): Promise<Usage> {
    const answer = this.#answer(USAGE_MS);
    this.#child.send("usage");
    return (await answer) as Usage;
  }

  ended(): string | undefined {
    return this.#ended;
  }

  async close(): Promise<void> {
    if (this.#ended === undefined) {
      const ended = new Promise((resolve) => this.#child.once("exit", resolve));
      this.#child.kill("SIGTERM");
      const killer = setTimeout(() => this.#child.kill("SIGKILL"), END_MS);
      await ended;
      clearTimeout(killer);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  #answer(timeoutMs: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the target's process does not answer")), timeoutMs);
      const onExit = (): void => {
        clearTimeout(timer);
        reject(new Error(`the target's process ended: ${this.#ended}`));
      };
      this.#child.once("exit", onExit);
      this.#child.once("message", (message) => {
        clearTimeout(timer);
        this.#child.off("exit", onExit);
        resolve(message);
      });
    });
  }
}

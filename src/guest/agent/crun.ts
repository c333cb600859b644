import { readFile, rm } from "node:fs/promises";
import { Fault } from "../../base/fault.ts";
import type { Children, ProgramOptions } from "../system/children.ts";
import { spaceText } from "./exhaustion.ts";

const ROOT = "/run/crun";
/** A call takes a tenth of a second; one that takes this long waits for something that will not come, ms. */
const PATIENCE_MS = 120_000;

export interface CrunTarget {
  readonly id: string;
  /** File for the PID of the process. */
  readonly pidFile: string;
  /** Descriptors for the process, or the socket that takes its terminal. */
  readonly stdio: readonly [number, number, number] | { readonly consoleSocket: string };
}

/** The OCI runtime. Each call is one short-lived process; what it says in an error is passed on in kubelet's words. */
export class Crun {
  readonly #children: Children;
  readonly #diskPath: string;
  #calls = 0;

  /** @param deps.diskPath a path on the guest's disk, for messages about a full one */
  constructor(deps: { readonly children: Children; readonly diskPath: string }) {
    this.#children = deps.children;
    this.#diskPath = deps.diskPath;
  }

  /** Sets the container up; its process waits for `start`. */
  async create(target: CrunTarget & { readonly bundle: string }): Promise<number> {
    await this.#run("create", ["--bundle", target.bundle, ...common(target), target.id], target);
    return readPid(target.pidFile);
  }

  async start(id: string): Promise<void> {
    await this.#run("start", [id]);
  }

  /** Starts one more process. */
  async exec(target: CrunTarget & { readonly processFile: string; readonly oomScore: number }): Promise<number> {
    const args = ["--detach", "--process", target.processFile, ...common(target), target.id];
    await this.#run("exec", args, target, target.oomScore); // crun ignores oomScoreAdj here: it is inherited
    return readPid(target.pidFile);
  }

  /** Removes what the runtime keeps, killing what still runs. Success when there is nothing. */
  async delete(id: string): Promise<void> {
    await this.#run("delete", ["--force", id]);
  }

  async update(id: string, resourcesFile: string): Promise<void> {
    await this.#run("update", ["--resources", resourcesFile, id]);
  }

  async #run(command: string, args: readonly string[], target?: CrunTarget, oomScore = 0): Promise<void> {
    this.#calls += 1;
    const log = `/run/kata-remote/crun-${this.#calls}.log`;
    const stdio = target === undefined || "consoleSocket" in target.stdio ? undefined : target.stdio;
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const options: ProgramOptions = { stdio: stdio ?? ["ignore", "ignore", "ignore"], oomScore, signal };
    const result = await this.#children.run(
      "crun",
      ["--root", ROOT, "--cgroup-manager=cgroupfs", `--log=${log}`, "--log-format=json", command, ...args],
      options,
    );
    const text = await readFile(log, "utf8").catch(() => ""); // not made when there was nothing to say
    await rm(log, { force: true });
    if (result.exitCode !== 0) throw this.#fault(command, result.exitCode, lastMessage(text));
  }

  #fault(command: string, exitCode: number, said: string): Fault {
    const context = { command: `crun ${command}`, exitCode };
    const missing = /executable file [`'"](.+?)[`'"] not found/.exec(said)?.[1];
    if (missing !== undefined) {
      return new Fault(
        "not_found",
        `exec: "${missing}": executable file not found in $PATH: no such file or directory`,
        context,
      );
    }
    if (/no space left on device/i.test(said)) {
      return new Fault("resource_exhausted", `${said}: guest disk full, ${spaceText(this.#diskPath)}`, context);
    }
    if (/cannot allocate memory/i.test(said) || exitCode === 137) {
      return new Fault("resource_exhausted", `guest memory full${said === "" ? "" : `: ${said}`}`, context);
    }
    if (/no such file or directory/i.test(said))
      return new Fault("not_found", said.replace(/No such file/, "no such file"), context);
    if (/permission denied/i.test(said))
      return new Fault("permission_denied", said.replace(/Permission/, "permission"), context);
    return new Fault("internal", said === "" ? `crun ${command} ended with ${exitCode}` : said, context);
  }
}

function common(target: CrunTarget): string[] {
  const terminal = "consoleSocket" in target.stdio ? ["--console-socket", target.stdio.consoleSocket] : [];
  return ["--pid-file", target.pidFile, ...terminal];
}

async function readPid(file: string): Promise<number> {
  const pid = Number.parseInt(await readFile(file, "utf8"), 10);
  await rm(file, { force: true });
  if (!(pid > 1)) throw new Fault("internal", `crun wrote no PID into ${file}`);
  return pid;
}

function lastMessage(log: string): string {
  const line = log.trim().split("\n").at(-1) ?? "";
  try {
    const { msg } = JSON.parse(line) as { msg?: unknown };
    return typeof msg === "string" ? msg : line;
  } catch {
    return line; // plain text
  }
}

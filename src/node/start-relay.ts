import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Call, withDeadline } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate, replaceFile } from "../base/files.ts";
import type { Logger } from "../base/log.ts";
import { sleep } from "../base/retry.ts";
import { RelayClient, type RelaySettings, settingsFile } from "../relay/index.ts";

export interface StartRelayDeps {
  readonly runDir: string;
  readonly log: Logger;
  readonly settings: RelaySettings;
  /** Command that runs or starts a relay in a directory, whose path it gets appended. */
  readonly command: (dir: string) => readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

/** Boot of Node on a busy machine included. */
const START_MS = 20_000;
const POLL_MS = 25;

/** Starts a relay process and connects to it. @throws Fault with the end of the process when it does not come up */
export async function startRelay(deps: StartRelayDeps, call: Call): Promise<RelayClient> {
  const { runDir, log, settings, command, env } = deps;
  // Short: a socket's path has 107 bytes.
  const dir = join(relaysDir(runDir), randomBytes(4).toString("hex"));
  await mkdirPrivate(dir);
  await replaceFile(settingsFile(dir), JSON.stringify(settings));
  const [program = "", ...args] = command(dir);
  let ended: string | undefined;
  // A session of its own: it outlives this process, whoever is sent a signal with it.
  const child = spawn(program, args, { detached: true, stdio: ["ignore", "inherit", "inherit"], cwd: "/", env });
  child.once("error", (e) => {
    ended = e.message;
  });
  child.once("exit", (code, signal) => {
    // A command that only asks a service manager ends at once.
    if (code !== 0) ended = `it ended with ${code ?? signal}`;
  });
  child.unref();
  const bounded = withDeadline(START_MS, call);
  for (;;) {
    try {
      return await RelayClient.connect(dir, { log }, bounded);
    } catch (cause) {
      if (ended === undefined && !bounded.signal.aborted) {
        await sleep(POLL_MS, bounded).catch(() => undefined); // the next turn sees that the time is over
        continue;
      }
      await rm(dir, { recursive: true, force: true });
      const why = ended ?? "it does not answer";
      throw new Fault("unavailable", `the relay process (${program}) could not be started: ${why}`, {}, { cause });
    }
  }
}

/** The relays of earlier daemons that live. Directories of dead ones go. @throws Fault when one lives and does not answer */
export async function findRelays(runDir: string, log: Logger, call: Call): Promise<readonly RelayClient[]> {
  const root = relaysDir(runDir);
  await mkdirPrivate(root);
  const found: RelayClient[] = [];
  for (const name of (await readdir(root)).sort()) {
    const dir = join(root, name);
    try {
      found.push(await RelayClient.connect(dir, { log }, call));
    } catch (err) {
      // One that lives and does not answer holds pods: starting without it would lose them.
      if (Fault.from(err).code !== "unavailable") throw err;
      log.info({ err, dir }, "nobody answers there any more");
      await rm(dir, { recursive: true, force: true });
    }
  }
  return found;
}

function relaysDir(runDir: string): string {
  return join(runDir, "r");
}

import type { Call } from "../base/call.ts";
import type { Logger } from "../base/log.ts";
import type { Relay } from "../relay/index.ts";
import type { NodeConfig } from "./config.ts";
import { Relays } from "./relays.ts";
import { findRelays, startRelay } from "./start-relay.ts";

export interface RelayProcessOptions {
  readonly log: Logger;
  /** Command that runs or starts a relay in a directory. */
  readonly command: (dir: string) => readonly string[];
  /** Environment of that command. */
  readonly env: NodeJS.ProcessEnv;
  /** How a relay starts this daemon again; [] = it does not. */
  readonly restart: readonly string[];
}

/** The relay processes of this node, those that earlier daemons started included. @throws Fault when none can be had */
export async function openRelays(config: NodeConfig, options: RelayProcessOptions, call: Call): Promise<Relay> {
  const { log, command, env, restart } = options;
  const { runDir, keepAliveMs, keepAliveDeadlineMs, orphanAfterMs, logLevel } = config;
  const settings = { keepAliveMs, keepAliveDeadlineMs, orphanAfterMs, logLevel };
  const found = await findRelays(runDir, log, call);
  const start = (c: Call) => startRelay({ runDir, log, settings, command, env }, c);
  return await Relays.open({ log, found, start, restart }, call);
}

import { join } from "node:path";

/** In the relay's directory: how it shall run, written by the daemon that starts it. */
export function settingsFile(dir: string): string {
  return join(dir, "relay.json");
}

/** Checked by the daemon's configuration: the relay, which is kept small, takes it as it is. */
export interface RelaySettings {
  readonly keepAliveMs: number;
  readonly keepAliveDeadlineMs: number;
  readonly orphanAfterMs: number;
  readonly logLevel: string;
}

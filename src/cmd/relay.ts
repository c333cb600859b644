// What holds the connections of a node's pods while its daemon restarts: `kata-remote relay <directory>`, started by the
// daemon. A program and a bundle of its own, so that nothing is loaded that it does not need.
import { writeFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { createLogger } from "../base/log.ts";
import { DaemonKeeper, RelayServer, type RelaySettings, settingsFile } from "../relay/index.ts";

/** Last to be chosen by the OOM killer, after the daemon. */
const OOM_SCORE = "-999";

const dir = process.argv.at(-1) ?? "";
process.umask(0o077);
const settings = JSON.parse(await readFile(settingsFile(dir), "utf8")) as RelaySettings;
const log = createLogger("relay", { level: settings.logLevel });
try {
  writeFileSync("/proc/self/oom_score_adj", OOM_SCORE);
} catch (err) {
  log.warn({ err }, "cannot set the OOM score: pods may be lost when memory runs out");
}

let server: RelayServer | undefined;
let ending = false;
async function end(reason: string): Promise<void> {
  if (ending) return;
  ending = true;
  log.info({ reason }, "relay ends");
  keeper.close();
  await rm(dir, { recursive: true, force: true });
  process.exit(0);
}

const keeper = new DaemonKeeper({
  ...{ log, orphanAfterMs: settings.orphanAfterMs, guestCount: () => server?.guestCount ?? 0 },
  onOrphaned: (reason) => void end(reason),
});
server = await RelayServer.open({
  ...{ dir, log, keepAliveMs: settings.keepAliveMs, keepAliveDeadlineMs: settings.keepAliveDeadlineMs },
  onAttached: () => keeper.attached(),
  onDetached: () => keeper.detached(),
  onRestart: (argv) => keeper.setRestart(argv),
  onEnd: () => void end("the node daemon ended it"),
});
// Its daemon's terminal or service manager may mean all of a group: a relay ends when its daemon says so.
process.on("SIGHUP", () => undefined);
process.on("SIGTERM", () => void end("SIGTERM received"));
process.on("uncaughtException", (err) => {
  log.fatal({ err }, "relay broke");
  process.exit(1);
});

import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** A heap as small as the relay's work, and no more threads than it uses. */
export const RELAY_NODE_FLAGS = ["--max-semi-space-size=1", "--max-old-space-size=256", "--v8-pool-size=1"];

/** Source: deploy/systemd/kata-remote-relay@.service. */
const UNIT_DIR = "/run/kata-remote/r";

/**
 * How this node daemon starts a relay process in a directory: by its own systemd unit where systemd runs the daemon (a
 * stop of the daemon's unit leaves it alone), else as a child in a session of its own.
 */
export function relayCommand(env: NodeJS.ProcessEnv, supervised: boolean): (dir: string) => readonly string[] {
  const systemd = supervised && env.INVOCATION_ID !== undefined && existsSync("/run/systemd/system");
  const folder = dirname(realpathSync(process.argv[1] ?? ""));
  const bundle = join(folder, "relay.mjs");
  const script = existsSync(bundle) ? bundle : join(folder, "relay.ts");
  const relay = [process.execPath, ...RELAY_NODE_FLAGS, script];
  // The daemon's mounts are its own: a relay in them would keep them busy after it.
  const mounts = env.KATA_REMOTE_HOST_MOUNTS_FD;
  const enter = mounts === undefined ? [] : ["nsenter", `--mount=/proc/${process.pid}/fd/${mounts}`, "--"];
  return (dir) =>
    systemd && dirname(dir) === UNIT_DIR
      ? ["systemctl", "start", `kata-remote-relay@${basename(dir)}.service`]
      : [...enter, ...relay, dir];
}

/** How a relay starts this daemon again; [] = it does not, systemd does. */
export function restartCommand(env: NodeJS.ProcessEnv, supervised: boolean): readonly string[] {
  if (supervised) return [];
  // With mounts of its own, and one starter at a time.
  if (env.KATA_REMOTE_LAUNCHER !== undefined) return [env.KATA_REMOTE_LAUNCHER, "daemon"];
  return [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
}

/** Environment of a relay: the descriptors that these name are this daemon's. */
export function relayEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { KATA_REMOTE_HOST_ROOT_FD: _root, KATA_REMOTE_HOST_MOUNTS_FD: _mounts, ...rest } = env;
  return { ...rest, NODE_NO_WARNINGS: "1" };
}

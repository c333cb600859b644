import { resolve } from "node:path";
import type { Call } from "../base/call.ts";
import { createLogger } from "../base/log.ts";
import type { Layers } from "../base/overlay.ts";
import {
  ensureLock,
  loadNodeConfig,
  type NodeConfig,
  type NodeDaemon,
  openHypervisors,
  startNodeDaemon,
} from "../node/index.ts";
import { createShim } from "../shim/index.ts";

export interface NodeOptions {
  /** TOML; without it KATA_REMOTE_NODE_CONFIG, then /etc/kata-remote/node.toml if it is there. */
  readonly configPath?: string;
  /** containerd addresses to serve from the start. */
  readonly doors: readonly string[];
  /** Around the file. */
  readonly layers?: Layers;
}

/** After the daemon has closed, whatever still keeps the process alive is cut off, ms: the lock must become free. */
const EXIT_MS = 3_000;

/**
 * The node daemon's configuration. KATA_REMOTE_RUN_DIR wins over the file: the launcher has only the environment.
 * @throws Fault as loadNodeConfig does
 */
export async function readNodeConfig(configPath?: string, layers: Layers = {}): Promise<NodeConfig> {
  const { KATA_REMOTE_NODE_CONFIG, KATA_REMOTE_RUN_DIR } = process.env;
  const config = await loadNodeConfig(configPath ?? KATA_REMOTE_NODE_CONFIG, layers);
  return { ...config, runDir: resolve(KATA_REMOTE_RUN_DIR ?? config.runDir) };
}

/** Takes the lock of the run directory; may start this program anew under flock(1), so call it before anything else. */
export async function lockRunDir(config: NodeConfig, call: Call): Promise<void> {
  const argv = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  await ensureLock({ runDir: config.runDir, argv, env: process.env }, call);
}

/** Starts the daemon with its real parts. */
export async function startNode(config: NodeConfig, doors: readonly string[], call: Call): Promise<NodeDaemon> {
  const { KATA_REMOTE_SUPERVISED, KATA_REMOTE_HOST_ROOT_FD, SYSTEMD_EXEC_PID } = process.env;
  const log = createLogger("node", { level: config.logLevel });
  // SYSTEMD_EXEC_PID alone says nothing: containerd's children inherit containerd's.
  const supervised = KATA_REMOTE_SUPERVISED === "1" || SYSTEMD_EXEC_PID === String(process.pid);
  // The launcher opened it before it gave us mounts of our own. By our pid: Node keeps it from our children.
  const hostRoot =
    KATA_REMOTE_HOST_ROOT_FD === undefined ? undefined : `/proc/${process.pid}/fd/${KATA_REMOTE_HOST_ROOT_FD}`;
  const deps = { log, createShim, openHypervisors, supervised, ownProcess: true, hostRoot, doors };
  return startNodeDaemon(config, deps, call);
}

/** `kata-remote node`: serves until the call ends or, unsupervised, there was no pod for a while. */
export async function runNode(options: NodeOptions, call: Call): Promise<void> {
  const config = await readNodeConfig(options.configPath, options.layers);
  await lockRunDir(config, call);
  const daemon = await startNode(config, options.doors, call);
  const stopped = new Promise<string>((end) => {
    if (call.signal.aborted) end("the node daemon was told to end");
    else call.signal.addEventListener("abort", () => end("the node daemon was told to end"), { once: true });
  });
  const reason = await Promise.race([stopped, daemon.idle.then(() => "the node daemon was idle")]);
  await daemon.close(reason);
  setTimeout(() => process.exit(), EXIT_MS).unref();
}

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { type Call, withDeadline } from "../base/call.ts";
import { createLogger } from "../base/log.ts";
import type { Layers } from "../base/overlay.ts";
import { sleep } from "../base/retry.ts";
import {
  ensureLock,
  type HypervisorDeps,
  loadNodeConfig,
  type NodeConfig,
  type NodeDaemon,
  openHypervisors,
  openRelays,
  startNodeDaemon,
} from "../node/index.ts";
import { createShim } from "../shim/index.ts";
import { askNode } from "./control-client.ts";
import { relayCommand, relayEnvironment, restartCommand } from "./relay-command.ts";

export interface NodeOptions {
  /** TOML; without it KATA_REMOTE_NODE_CONFIG, then /etc/kata-remote/node.toml if it is there. */
  readonly configPath?: string;
  /** containerd addresses to serve from the start. */
  readonly doors: readonly string[];
  /** Around the file. */
  readonly layers?: Layers;
}

/** All pods are killed within 10 s, and their VMs' ends handed to the backend. */
const DRAIN_MS = 60_000;
const DRAIN = "the node is drained";

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

/** The adaptor in this process; undefined: wherever the configuration says. */
interface ThisProcess {
  readonly adaptor: HypervisorDeps["adaptor"];
}

/**
 * Starts the daemon with its real parts.
 * @param where connections are held: in processes of their own, or in this one, which its pods then end with
 */
export async function startNode(
  config: NodeConfig,
  doors: readonly string[],
  where: "relay process" | ThisProcess,
  call: Call,
): Promise<NodeDaemon> {
  const { KATA_REMOTE_HOST_ROOT_FD } = process.env;
  const log = createLogger("node", { level: config.logLevel });
  const supervised = isSupervised();
  // The launcher opened it before it gave us mounts of our own. By our pid: Node keeps it from our children.
  const hostRoot =
    KATA_REMOTE_HOST_ROOT_FD === undefined ? undefined : `/proc/${process.pid}/fd/${KATA_REMOTE_HOST_ROOT_FD}`;
  const relays = {
    log,
    command: relayCommand(process.env, supervised),
    env: relayEnvironment(process.env),
    restart: restartCommand(process.env, supervised),
  };
  const deps = { log, createShim, supervised, ownProcess: true, hostRoot, doors };
  if (where === "relay process")
    return startNodeDaemon(config, { ...deps, openHypervisors, openRelay: (c) => openRelays(config, relays, c) }, call);
  const open: typeof openHypervisors = (c, d) => openHypervisors(c, { ...d, adaptor: where.adaptor });
  return startNodeDaemon(config, { ...deps, openHypervisors: open }, call);
}

/** `kata-remote node --drain`: ends every pod of this node, its daemon and its relay; resolves when they have ended. */
export async function drainNode(call: Call): Promise<void> {
  const { pid } = await askNode(async (control, options) => {
    const status = await control.status({}, options);
    await control.drain({}, options);
    return status;
  }, call);
  for (const bounded = withDeadline(DRAIN_MS, call); existsSync(`/proc/${pid}`); ) await sleep(100, bounded);
}

function isSupervised(): boolean {
  const { KATA_REMOTE_SUPERVISED, SYSTEMD_EXEC_PID } = process.env;
  // SYSTEMD_EXEC_PID alone says nothing: containerd's children inherit containerd's.
  return KATA_REMOTE_SUPERVISED === "1" || SYSTEMD_EXEC_PID === String(process.pid);
}

/** `kata-remote node`: serves until the call ends or, unsupervised, there was no pod for a while. */
export async function runNode(options: NodeOptions, call: Call): Promise<void> {
  const config = await readNodeConfig(options.configPath, options.layers);
  await lockRunDir(config, call);
  const daemon = await startNode(config, options.doors, "relay process", call);
  const stopped = new Promise<string>((end) => {
    if (call.signal.aborted) end("the node daemon was told to end");
    else call.signal.addEventListener("abort", () => end("the node daemon was told to end"), { once: true });
  });
  const reason = await Promise.race([
    stopped,
    daemon.idle.then(() => "the node daemon was idle"),
    daemon.drained.then(() => DRAIN),
  ]);
  // Who is started again by systemd is told to end when it is upgraded or restarted: its pods go on.
  if (isSupervised() && reason !== DRAIN) {
    await daemon.handOver(reason);
    process.exit();
  }
  await daemon.close(reason);
  setTimeout(() => process.exit(), EXIT_MS).unref();
}

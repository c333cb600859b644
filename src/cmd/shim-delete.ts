import { readFile } from "node:fs/promises";
import { background } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { createLogger } from "../base/log.ts";
import { DeleteResponse } from "../gen/containerd/task/v2/shim.ts";
import { cleanUp, parseDeleteFlags } from "../shim/bootstrap/index.ts";

/**
 * `containerd-shim-kata-remote-v2 delete`: containerd lost a shim and asks for what it left to be cleaned up. Prints a
 * DeleteResponse and nothing else on stdout; what containerd shall log goes to stderr.
 * @returns the exit code
 */
export async function runShimDelete(flags: readonly string[]): Promise<number> {
  const log = createLogger("shim-delete", { level: "warn" });
  try {
    const wanted = parseDeleteFlags(flags);
    const runDir = process.env.KATA_REMOTE_RUN_DIR || "/run/kata-remote";
    const result = await cleanUp({ runDir, log, openBackends: () => openBackends(runDir, log) }, wanted, background());
    const ms = result.exitedAt.getTime();
    const exitedAt = { seconds: BigInt(Math.floor(ms / 1_000)), nanos: (ms % 1_000) * 1_000_000 };
    const { pid, exitStatus } = result;
    process.stdout.write(DeleteResponse.encode({ pid, exitStatus, exitedAt }).finish());
    return 0;
  } catch (e) {
    process.stderr.write(`kata-remote: ${Fault.from(e).fullMessage}\n`);
    return 1;
  }
}

/** Loaded only when it is needed: gRPC alone takes longer to load than the rest. */
async function openBackends(runDir: string, log: ReturnType<typeof createLogger>) {
  const { loadNodeConfig, openHypervisors, openPodNetwork, nodeId } = await import("../node/index.ts");
  const config = { ...(await loadNodeConfig(process.env.KATA_REMOTE_NODE_CONFIG || undefined)), runDir };
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  const hypervisors = await openHypervisors(config, { nodeId: await nodeId(config.stateDir), bootId, log });
  return { hypervisors, podNetwork: openPodNetwork({ config: config.podNetwork, stateDir: config.stateDir, log }) };
}

import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { createLogger } from "../base/log.ts";
import type { Layers } from "../base/overlay.ts";
import { loadAdaptorConfig, openAdaptor } from "./adaptor.ts";
import { lockRunDir, readNodeConfig, startNode } from "./node.ts";

export interface UpOptions {
  readonly nodeConfigPath?: string;
  readonly adaptorConfigPath?: string;
  /** containerd addresses to serve from the start. */
  readonly doors: readonly string[];
  /** Around the files. */
  readonly node?: Layers;
  readonly adaptor?: Layers;
}

/** `kata-remote up`: adaptor and node daemon in one process. The adaptor's socket is there for the command line. */
export async function runUp(options: UpOptions, call: Call): Promise<void> {
  // Pods of this machine hold it; it must not end because there are none for a while.
  process.env.KATA_REMOTE_SUPERVISED = "1";
  const nodeConfig = await readNodeConfig(options.nodeConfigPath, options.node);
  await lockRunDir(nodeConfig, call);
  const adaptorConfig = await loadAdaptorConfig(options.adaptorConfigPath, options.adaptor);
  const socketPath = join(nodeConfig.runDir, "adaptor.sock");
  const adaptor = await openAdaptor(
    { ...adaptorConfig, grpc: { ...adaptorConfig.grpc, socketPath } },
    createLogger("adaptor", { level: adaptorConfig.logLevel }),
  );
  try {
    const remote = { ...nodeConfig.remote, address: `unix://${socketPath}` };
    const daemon = await startNode({ ...nodeConfig, remote }, options.doors, { adaptor: adaptor.nodeDoor }, call);
    if (!call.signal.aborted) {
      await new Promise<void>((resolve) => call.signal.addEventListener("abort", () => resolve(), { once: true }));
    }
    await daemon.close("kata-remote up was told to end");
  } finally {
    await adaptor.close();
  }
}

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseConfig } from "../base/config.ts";
import { Fault } from "../base/fault.ts";
import type { Logger } from "../base/log.ts";
import { type Hypervisor, openQemu, openRemote, type RemoteOptions } from "../shim/hypervisor/index.ts";
import { type NodeConfig, QemuConfig, type RemoteConfig } from "./config.ts";

export interface HypervisorDeps {
  readonly nodeId: string;
  readonly bootId: string;
  readonly log: Logger;
  /** The adaptor of the backend `remote`, where it is in this process. */
  readonly adaptor?: RemoteOptions["adaptor"];
}

/**
 * Opens the default backend and every other one that the configuration has a table for.
 * @throws Fault invalid_argument | not_found naming the setting
 */
export async function openHypervisors(
  config: NodeConfig,
  deps: HypervisorDeps,
): Promise<ReadonlyMap<string, Hypervisor>> {
  const opened = new Map<string, Hypervisor>();
  try {
    const needed = (name: string): boolean => config.shim.hypervisor === name || config.stock?.hypervisor === name;
    if (needed("remote") || config.remote !== undefined) opened.set("remote", await remote(config, deps));
    if (needed("qemu") || config.qemu !== undefined) opened.set("qemu", await qemu(config, deps));
    return opened;
  } catch (e) {
    for (const hypervisor of opened.values()) await hypervisor.close();
    throw e;
  }
}

async function remote(config: NodeConfig, deps: HypervisorDeps): Promise<Hypervisor> {
  const {
    address = `unix://${join(config.runDir, "adaptor.sock")}`,
    patienceMs = 60_000,
    tls,
    joinFile,
  } = config.remote ?? {};
  return openRemote({
    ...deps,
    address,
    patienceMs,
    ...(tls === undefined ? {} : { tls: await readTls(tls) }),
    ...(joinFile === undefined ? {} : { joinFile }),
    stateDir: config.stateDir,
    runDir: config.runDir,
    log: deps.log.child({ hypervisor: "remote" }),
  });
}

async function qemu(config: NodeConfig, deps: HypervisorDeps): Promise<Hypervisor> {
  return openQemu({
    ...(config.qemu ?? parseConfig(QemuConfig, {}, "qemu")),
    nodeId: deps.nodeId,
    stateDir: config.stateDir,
    runDir: config.runDir,
    log: deps.log.child({ hypervisor: "qemu" }),
  });
}

async function readTls(tls: NonNullable<RemoteConfig["tls"]>) {
  const read = async (key: string, path: string): Promise<string> => {
    try {
      return await readFile(path, "utf8");
    } catch (cause) {
      throw new Fault(Fault.from(cause).code, `remote.tls.${key}: ${path} cannot be read`, { path }, { cause });
    }
  };
  return {
    caPem: await read("caFile", tls.caFile),
    certificatePem: await read("certificateFile", tls.certificateFile),
    keyPem: await read("keyFile", tls.keyFile),
  };
}

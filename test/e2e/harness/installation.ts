import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { stringify } from "smol-toml";
import type { PodNetworkConfig } from "../../../src/node/podnetwork/index.ts";
import type { ShimConfig } from "../../../src/shim/index.ts";
import { ROOT } from "./containerd.ts";
import { CACHE, VM_IMAGE } from "./images.ts";

export interface InstallationOptions {
  /** Everything lives below; short, for unix sockets. */
  readonly folder: string;
  /** Backend of pods that name none. */
  readonly hypervisor: "remote" | "qemu";
  /** Settings of the shim part that differ from the defaults. */
  readonly shim?: Partial<ShimConfig>;
  /** How VMs are connected; the pod network needs "tap", which "auto" (the default) takes where it works. */
  readonly network?: "auto" | "tap" | "user";
  /** Settings of the pod network that differ from the tests' own. */
  readonly podNetwork?: Partial<PodNetworkConfig>;
  /** VMs reach this host, at 10.0.2.2 with network "user". */
  readonly outbound?: boolean;
  /** Redis that the adaptor keeps its records in; without it they are in files. */
  readonly redisUrl?: string;
  /** The node daemon takes itself for one that systemd runs. */
  readonly supervised?: boolean;
  /** Where the adaptor makes VMs; without it provider local does. */
  readonly cloud?: {
    readonly provider: string;
    readonly settings: Readonly<Record<string, unknown>>;
    readonly env: NodeJS.ProcessEnv;
  };
}

/** Files and environment of one kata-remote that shares nothing with another on the same machine. */
export interface Installation {
  readonly folder: string;
  readonly runDir: string;
  readonly nodeConfig: string;
  readonly adaptorConfig: string;
  /** Names of the bridges that VMs of the adaptor and of the node daemon hang on. */
  readonly bridges: { readonly adaptor: string; readonly node: string };
  /** For containerd, the launcher, the daemons and the command. */
  readonly env: NodeJS.ProcessEnv;
}

export function install(options: InstallationOptions): Installation {
  const { folder, network = "auto" } = options;
  const runDir = join(folder, "run");
  const stateDir = join(folder, "state");
  mkdirSync(runDir, { recursive: true, mode: 0o700 });
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  const nodeConfig = join(folder, "node.toml");
  const adaptorConfig = join(folder, "adaptor.toml");
  // Several installations may be at work on one machine.
  const random = randomBytes(5).toString("hex");
  const bridges = { adaptor: `krl${random}`, node: `krq${random}` };
  const subnet = (net: number): string => `10.${net}.${Number.parseInt(random.slice(-2), 16)}.0/24`;
  writeFileSync(
    nodeConfig,
    nodeToml(options, runDir, stateDir, { network, bridge: bridges.node, subnet: subnet(212) }),
  );
  writeFileSync(
    adaptorConfig,
    adaptorToml(options, runDir, stateDir, { network, bridge: bridges.adaptor, subnet: subnet(211) }),
  );
  const env = {
    ...process.env,
    PATH: `${join(ROOT, "dist", "bin")}${delimiter}${process.env.PATH ?? ""}`,
    KATA_REMOTE_RUN_DIR: runDir,
    KATA_REMOTE_NODE_CONFIG: nodeConfig,
    KATA_REMOTE_ADAPTOR_CONFIG: adaptorConfig,
    ...(options.supervised === true ? { KATA_REMOTE_SUPERVISED: "1" } : {}),
    ...(options.redisUrl === undefined ? {} : { REDIS_URL: options.redisUrl }),
    ...options.cloud?.env,
  };
  return { folder, runDir, nodeConfig, adaptorConfig, bridges, env };
}

interface Place {
  readonly network: string;
  readonly bridge: string;
  readonly subnet: string;
}

function nodeToml(options: InstallationOptions, runDir: string, stateDir: string, place: Place): string {
  return stringify({
    runDir,
    stateDir: join(stateDir, "node"),
    // What tests mount lies in their own folder.
    shim: { hypervisor: options.hypervisor, hostPaths: [options.folder], ...options.shim },
    podNetwork: { bypassConntrack: false, ...options.podNetwork }, // the machine's own tables are not the tests' to change
    qemu: { imageDir: VM_IMAGE, ...place },
  });
}

function adaptorToml(options: InstallationOptions, runDir: string, stateDir: string, place: Place): string {
  const { cloud } = options;
  return stringify({
    ...(cloud === undefined ? {} : { provider: cloud.provider }),
    stateDir: join(stateDir, "adaptor"),
    grpc: { socketPath: join(runDir, "adaptor.sock") },
    rest: { socketPath: join(runDir, "rest.sock") },
    providers: {
      ...(cloud === undefined ? {} : { [cloud.provider]: cloud.settings }),
      local: {
        ...{ stateDir: join(stateDir, "local"), imageDir: VM_IMAGE, cacheDir: CACHE, ...place },
        outbound: options.outbound ?? false,
      },
    },
  });
}

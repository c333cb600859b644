import { mkdirSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { stringify } from "smol-toml";
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
}

/** Files and environment of one kata-remote that shares nothing with another on the same machine. */
export interface Installation {
  readonly folder: string;
  readonly runDir: string;
  readonly nodeConfig: string;
  readonly adaptorConfig: string;
  /** For containerd, the launcher, the daemons and the command. */
  readonly env: NodeJS.ProcessEnv;
}

export function install(options: InstallationOptions): Installation {
  const { folder } = options;
  const runDir = join(folder, "run");
  const stateDir = join(folder, "state");
  mkdirSync(runDir, { recursive: true, mode: 0o700 });
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  const nodeConfig = join(folder, "node.toml");
  const adaptorConfig = join(folder, "adaptor.toml");
  writeFileSync(nodeConfig, nodeToml(options, runDir, stateDir));
  writeFileSync(adaptorConfig, adaptorToml(runDir, stateDir));
  const env = {
    ...process.env,
    PATH: `${join(ROOT, "dist", "bin")}${delimiter}${process.env.PATH ?? ""}`,
    KATA_REMOTE_RUN_DIR: runDir,
    KATA_REMOTE_NODE_CONFIG: nodeConfig,
    KATA_REMOTE_ADAPTOR_CONFIG: adaptorConfig,
  };
  return { folder, runDir, nodeConfig, adaptorConfig, env };
}

function nodeToml(options: InstallationOptions, runDir: string, stateDir: string): string {
  const shim = { hypervisor: options.hypervisor, ...options.shim };
  return stringify({ runDir, stateDir: join(stateDir, "node"), shim, qemu: { imageDir: VM_IMAGE } });
}

function adaptorToml(runDir: string, stateDir: string): string {
  return stringify({
    stateDir: join(stateDir, "adaptor"),
    grpc: { socketPath: join(runDir, "adaptor.sock") },
    rest: { socketPath: join(runDir, "rest.sock") },
    providers: { local: { stateDir: join(stateDir, "local"), imageDir: VM_IMAGE, cacheDir: CACHE } },
  });
}

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { background } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { Fault } from "../../src/base/fault.ts";
import type { SandboxId } from "../../src/base/ids.ts";
import { createLogger } from "../../src/base/log.ts";
import { NodeConfig, startNodeDaemon } from "../../src/node/index.ts";
import type { VmAddress, VmRequest } from "../../src/shim/hypervisor/index.ts";
import { createShim } from "../../src/shim/index.ts";
import { FakeHypervisor } from "../fakes/hypervisor.ts";
import { serveTarget } from "./serve-target.ts";

export interface NodeReady {
  readonly task: string;
  readonly hypervisor: string;
  readonly bundle: string;
}

const MAX_VMS = 32;

/** A cloud without capacity: VMs can be reserved, a few at a time, and none of them starts. Nothing is remembered. */
class FullCloud extends FakeHypervisor {
  readonly #reserved = new Set<SandboxId>();

  override async createVm({ sandboxId }: VmRequest): Promise<void> {
    if (this.#reserved.size >= MAX_VMS) throw new Fault("resource_exhausted", `${MAX_VMS} VMs are reserved`);
    this.#reserved.add(sandboxId);
  }

  override async startVm(): Promise<VmAddress> {
    throw new Fault("unavailable", "no capacity");
  }

  override async stopVm(id: SandboxId): Promise<void> {
    this.#reserved.delete(id);
  }
}

/** A real node daemon with its shim, in front of a cloud that has no room. */
const [folder = ""] = process.argv.slice(2);
const hypervisor = join(folder, "hypervisor.sock");
const bundle = join(folder, "bundle");
mkdirSync(join(bundle, "rootfs"), { recursive: true });
writeFileSync(
  join(bundle, "config.json"),
  JSON.stringify({
    ociVersion: "1.0.2",
    process: { args: ["true"], cwd: "/", user: { uid: 0, gid: 0 } },
    root: { path: "rootfs" },
    linux: { namespaces: [{ type: "pid" }, { type: "mount" }] },
  }),
);
const config = parseConfig(
  NodeConfig,
  {
    runDir: join(folder, "run"),
    stateDir: join(folder, "state"),
    podNetwork: { bypassConntrack: false },
    stock: { socket: hypervisor, podsDir: join(folder, "pods"), guest: "reference" },
  },
  "fuzz",
);
const deps = {
  log: createLogger("node", { level: "error" }),
  createShim,
  openHypervisors: async () => new Map([["remote", new FullCloud()]]),
  ...{ supervised: true, ownProcess: false, doors: [] },
};
const daemon = await startNodeDaemon(config, deps, background());
const task = await daemon.openDoor(`default@${join(folder, "containerd.sock")}`);
const ready: NodeReady = { task: task.slice("unix://".length), hypervisor, bundle };
serveTarget(ready);

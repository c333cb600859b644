import { existsSync, readFileSync, statfsSync } from "node:fs";
import { release } from "node:os";
import { Fault } from "../../base/fault.ts";
import { VERSION } from "../../base/version.ts";
import type { HealthDefinition } from "../../gen/agent/health.ts";
import type { GuestDefinition } from "../../gen/kataremote/guest/v1/guest.ts";
import type { ServiceImplementation } from "../../ttrpc/index.ts";
import { memoryBytes } from "../system/machine.ts";
import type { GuestState } from "./guest-state.ts";
import type { GuestIdentity } from "./identity.ts";

/** What of the machine the service changes and asks; kept apart so that it can be tested anywhere. */
export interface MachinePort {
  setClock(unixNano: bigint): void;
  setHostname(name: string): void;
  /** ms from the kernel's start to the listener's. */
  listeningMs(): number;
  /** Makes the pod's network. Repeatable with the same plan. @returns the public key of its tunnel, "" for none */
  setPodNetwork(planJson: string): Promise<string>;
}

export interface GuestServiceDeps {
  readonly identity: GuestIdentity;
  readonly state: GuestState;
  readonly machine: MachinePort;
  /** Puts the new certificate into use. */
  readonly certificateChanged: () => void;
  /** A path on the guest's disk. */
  readonly diskPath: string;
  readonly treeDirectory: (treeId: string) => string;
  readonly images: () => Promise<ImagesPort>;
}

/** What pulls images. */
export interface ImagesPort {
  setSettings(json: string): void;
  readonly pulls: readonly {
    readonly image: string;
    readonly bytes: number;
    readonly totalBytes: number;
    readonly layers: number;
  }[];
}

/** A clock that is off by no more is left alone: setting it would only make it jump. */
const CLOCK_TOLERANCE_NS = 1_000_000_000n;

/** kataremote.guest.v1.Guest as one node sees it. */
export function guestService(deps: GuestServiceDeps, nodeId: string): ServiceImplementation<typeof GuestDefinition> {
  const { identity, state, machine } = deps;
  return {
    enroll: async () => {
      if (state.configured)
        throw new Fault("failed_precondition", "this guest is configured: its key was enrolled before");
      return { csrPem: identity.csrPem };
    },
    configure: async (request) => {
      if (request.sandboxId === "") throw new Fault("invalid_argument", "sandbox_id is empty");
      const first = !state.configured;
      if (first) identity.install(request.certificatePem);
      state.configure(request.sandboxId, nodeId);
      if (first) deps.certificateChanged();
      // Again too: whoever repeats this must not go on before the pod has its network.
      const tunnelKey = request.podNetworkJson === "" ? "" : await machine.setPodNetwork(request.podNetworkJson);
      if (!first) return { tunnelKey };
      const offNs = request.nowUnixNano - BigInt(Date.now()) * 1_000_000n;
      if (request.nowUnixNano > 0n && (offNs > CLOCK_TOLERANCE_NS || offNs < -CLOCK_TOLERANCE_NS)) {
        machine.setClock(request.nowUnixNano);
      }
      if (request.hostname !== "") machine.setHostname(request.hostname);
      return { tunnelKey };
    },
    info: async () => {
      const disk = statfsSync(deps.diskPath, { bigint: true });
      return {
        bootId: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
        kernelRelease: release(),
        guestVersion: VERSION,
        listeningMs: BigInt(machine.listeningMs()),
        memoryTotalBytes: memoryBytes("MemTotal"),
        memoryAvailableBytes: memoryBytes("MemAvailable"),
        guestProcessRssBytes: BigInt(process.memoryUsage.rss()),
        diskTotalBytes: disk.blocks * disk.bsize,
        diskAvailableBytes: disk.bavail * disk.bsize,
      };
    },
    statTree: async ({ treeId }) => ({ present: existsSync(deps.treeDirectory(treeId)) }),
    setImageSettings: async ({ settingsJson }) => {
      state.requireConfigured();
      (await deps.images()).setSettings(settingsJson);
      return {};
    },
    listPulls: async () => ({
      pulls: (await deps.images()).pulls.map(({ image, bytes, totalBytes, layers }) => ({
        ...{ image, layers, bytes: BigInt(bytes), totalBytes: BigInt(totalBytes) },
      })),
    }),
  };
}

/** grpc.Health: SERVING from Configure on. */
export function healthService(state: GuestState): ServiceImplementation<typeof HealthDefinition> {
  return servingHealth(() => state.requireConfigured());
}

/** grpc.Health of an agent that serves unless `check` throws. */
export function servingHealth(check: () => void = () => undefined): ServiceImplementation<typeof HealthDefinition> {
  const SERVING = 1;
  return {
    check: async () => {
      check();
      return { status: SERVING };
    },
    version: async () => {
      check();
      return { grpcVersion: "0.0.1", agentVersion: VERSION };
    },
  };
}

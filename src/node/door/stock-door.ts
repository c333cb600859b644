import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { PodNetwork } from "../../podnetwork/index.ts";
import type { Relay } from "../../relay/index.ts";
import type { Hypervisor, VmLoss } from "../../shim/hypervisor/index.ts";
import { checkInitdata, decodeInitdata } from "../../userdata/index.ts";
import type { StockConfig } from "./config.ts";
import { HypervisorDoor } from "./hypervisor-door.ts";
import { StockPods } from "./stock-pods.ts";
import { StockStates } from "./stock-state.ts";
import { readStockTls } from "./stock-tls.ts";

export interface StockDoorDeps {
  readonly hypervisors: ReadonlyMap<string, Hypervisor>;
  readonly relay: Relay;
  readonly podNetwork: PodNetwork | undefined;
  readonly runDir: string;
  readonly guestLostAfterMs: number;
  /** See StockDeps. */
  readonly lookMs?: number;
  readonly log: Logger;
}

/** What serves stock shims: their hypervisor socket, their pods, and what an earlier daemon left of these. */
export class StockDoor {
  readonly #config: StockConfig;
  readonly #pods: StockPods;
  readonly #log: Logger;
  #door: HypervisorDoor | undefined;

  private constructor(config: StockConfig, pods: StockPods, log: Logger) {
    this.#config = config;
    this.#pods = pods;
    this.#log = log;
  }

  /** Takes up the pods of an earlier daemon; nothing is served before `open`. @throws Fault naming the setting */
  static async recover(config: StockConfig, deps: StockDoorDeps, call: Call): Promise<StockDoor> {
    const hypervisor = deps.hypervisors.get(config.hypervisor);
    if (hypervisor === undefined)
      throw new Fault(
        "invalid_argument",
        `stock.hypervisor is "${config.hypervisor}", which is not configured on this node`,
      );
    if (config.guest === "stock" && config.hypervisor !== "remote")
      throw new Fault("invalid_argument", 'stock.guest "stock" needs stock.hypervisor "remote"');
    if (config.initdata !== undefined) await checkInitdata(decodeInitdata(config.initdata));
    const { relay, podNetwork, guestLostAfterMs, lookMs, log } = deps;
    const states = new StockStates(join(deps.runDir, "stock"), log);
    const tls = await readStockTls(config.tls);
    const pods = new StockPods({ config, tls, hypervisor, relay, podNetwork, states, guestLostAfterMs, lookMs, log });
    await pods.recover(await relay.held(call));
    return new StockDoor(config, pods, log);
  }

  /** @throws Fault when the socket cannot be made */
  async open(): Promise<void> {
    this.#door = await HypervisorDoor.open(this.#config.socket, { pods: this.#pods, log: this.#log });
    this.#log.info({ socket: this.#config.socket, guest: this.#config.guest }, "stock shims are served");
  }

  get podCount(): number {
    return this.#pods.count;
  }

  /** For Hypervisor.sync and PodNetwork.retain: none of these may be taken for a leftover. */
  liveSandboxes(hypervisor?: string): readonly SandboxId[] {
    return hypervisor === undefined || hypervisor === this.#config.hypervisor ? this.#pods.sandboxIds : [];
  }

  onVmLoss(loss: VmLoss): void {
    this.#pods.lose(loss);
  }

  /** Pods live on. */
  async close(): Promise<void> {
    this.#pods.close();
    await this.#door?.close();
  }
}

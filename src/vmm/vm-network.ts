import { access } from "node:fs/promises";
import type { Call } from "../base/call.ts";
import { background } from "../base/call.ts";
import { exec } from "../base/exec.ts";
import { Fault } from "../base/fault.ts";
import type { Logger } from "../base/log.ts";
import { Mutex } from "../base/mutex.ts";
import { HostBridge } from "./host-bridge.ts";
import type { NetworkSettings } from "./settings/index.ts";
import { step } from "./step.ts";
import type { TapNetwork } from "./vmm.ts";

/** What takes milliseconds on a host that is not busy. */
const STEP_MS = 60_000;

export interface VmNetworkOptions extends Readonly<NetworkSettings> {
  /** See BridgeOptions. */
  readonly owner: string;
  readonly log: Logger;
}

/** Whether VMs can be given tap devices here, and why not. */
export interface TapVerdict {
  readonly works: boolean;
  readonly detail: string;
}

/** Where VMs are reached: each at an address of its own on a bridge, or all behind QEMU's user-mode network. */
export class VmNetwork {
  readonly #options: VmNetworkOptions;
  readonly #bridge: HostBridge;
  /** Addresses are chosen, and the bridge comes and goes, one after another. */
  readonly #mutex = new Mutex();
  #verdict: Promise<TapVerdict> | undefined;

  /** @throws Fault invalid_argument naming the subnet */
  constructor(options: VmNetworkOptions) {
    this.#options = options;
    const { bridge, subnet, owner } = options;
    this.#bridge = new HostBridge({ name: bridge, subnet, owner });
  }

  /**
   * Chooses a VM's address. `keep` makes it known to the next one's `taken` before that is asked.
   * @param mine what the VM has already, when its start is repeated
   * @throws Fault failed_precondition when tap is asked for and does not work here
   */
  assign(
    vm: {
      readonly mine?: TapNetwork | undefined;
      readonly taken: () => Promise<Iterable<string>> | Iterable<string>;
      readonly keep: (network: TapNetwork | undefined) => Promise<void> | void;
    },
    call: Call,
  ): Promise<TapNetwork | undefined> {
    return this.#mutex.run(async () => {
      const network = vm.mine ?? (await this.#choose(vm.taken, call));
      if (vm.mine !== undefined) await this.#bridge.ensure(call);
      await vm.keep(network);
      return network;
    });
  }

  /** Removes the bridge when no VM is left. */
  release(inUse: () => Promise<boolean> | boolean): Promise<void> {
    return this.#mutex.run(async () => {
      if (this.#options.network === "user" || (await inUse())) return;
      await this.#bridge.remove(background()).catch((err: unknown) => {
        // Nothing depends on its going: the next VM uses it again.
        this.#options.log.warn({ err, bridge: this.#bridge.name }, "bridge not removed");
      });
    });
  }

  /** Tried in a network namespace that is gone afterwards: the host's is not changed. */
  verdict(): Promise<TapVerdict> {
    this.#verdict ??= step("trying a tap device", STEP_MS, background(), tryTap).catch((e: unknown) => {
      this.#verdict = undefined; // a host that was busy for a moment says nothing about its tap devices
      throw e;
    });
    return this.#verdict;
  }

  async #choose(
    taken: () => Promise<Iterable<string>> | Iterable<string>,
    call: Call,
  ): Promise<TapNetwork | undefined> {
    const { network, outbound, log } = this.#options;
    if (network === "user") return undefined;
    try {
      const { works, detail } = await this.verdict();
      if (!works) throw new Fault("failed_precondition", `VMs cannot have tap devices here: ${detail}`);
      await step(`setting up bridge ${this.#bridge.name}`, STEP_MS, call, (c) => this.#bridge.ensure(c));
      const { name: bridge, prefixLength, address: gateway } = this.#bridge;
      return {
        bridge,
        address: this.#bridge.free(new Set(await taken())),
        prefixLength,
        ...(outbound ? { gateway } : {}),
      };
    } catch (e) {
      if (network === "tap" || call.signal.aborted) throw e;
      log.warn({ err: e }, "the VM gets QEMU's user-mode network, which carries no pod network");
      return undefined;
    }
  }
}

async function tryTap(call: Call): Promise<TapVerdict> {
  try {
    if (process.getuid?.() !== 0) return { works: false, detail: "it needs root" };
    await access("/dev/net/tun");
    const script =
      "ip link add name br0 type bridge && ip tuntap add dev tap0 mode tap && ip link set dev tap0 master br0 && ip link set dev tap0 type bridge_slave isolated on";
    await exec("unshare", ["--net", "sh", "-c", script], call);
    return { works: true, detail: "bridge and tap devices can be made" };
  } catch (e) {
    if (call.signal.aborted) throw e;
    return { works: false, detail: Fault.from(e).fullMessage };
  }
}

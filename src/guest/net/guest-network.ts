import { Fault } from "../../base/fault.ts";
import { Mutex } from "../../base/mutex.ts";
import {
  newWireguardKeys,
  type PodNetworkPlan,
  parsePlan,
  type WireguardKeys,
  type WireguardTunnel,
} from "../../podnetwork/index.ts";
import { ipBatches, type PlanNamespaces, removalBatches } from "./ip-batches.ts";

/** "tunnel": the one between the guest's own and the pod's; made when it is first asked for. */
export type GuestNamespace = "root" | "tunnel" | "pod";

/**
 * Runs `ip -batch` in one of the guest's namespaces.
 * `force` goes on after a line that fails; otherwise a Fault names the line.
 */
export type IpRunner = (namespace: GuestNamespace, batch: string, force?: boolean) => Promise<void>;

export interface GuestNetworkDeps {
  readonly run: IpRunner;
  readonly namespaces: PlanNamespaces;
  /** Makes the namespace `tunnel`. */
  readonly makeTunnelNamespace: () => void;
  /** Gives the WireGuard link its keys and its peer. @throws Fault */
  readonly setLink: (tunnel: WireguardTunnel, privateKey: string) => void;
}

/** Guest half of the pod network. */
export class GuestNetwork {
  readonly #deps: GuestNetworkDeps;
  readonly #mutex = new Mutex();
  #applied = "";
  #unfinished: PodNetworkPlan | undefined;
  /** Made here, for this pod; the private one is told to nobody but the kernel. */
  #keys: WireguardKeys | undefined;

  constructor(deps: GuestNetworkDeps) {
    this.#deps = deps;
  }

  /**
   * Makes the pod's namespace what the plan says. The same plan again is success; a guest has only one.
   * @returns the guest's public key for the plan's tunnel, base64; "" when it asks for none
   * @throws Fault invalid_argument naming the plan's field; failed_precondition naming what the kernel refused
   */
  apply(json: string): Promise<string> {
    return this.#mutex.run(async () => {
      if (json !== this.#applied) await this.#make(json);
      return this.#keys?.publicKey ?? "";
    });
  }

  async #make(json: string): Promise<void> {
    if (this.#applied !== "")
      throw new Fault("failed_precondition", "this guest has its pod's network already; it takes no other");
    const { run, namespaces, makeTunnelNamespace, setLink } = this.#deps;
    const plan = parsePlan(parseJson(json), "pod network plan");
    if (this.#unfinished !== undefined) {
      const removal = removalBatches(this.#unfinished);
      if (removal.root !== "") await run("root", removal.root, true);
      if (removal.tunnel !== "") await run("tunnel", removal.tunnel, true);
    }
    const { tunnel } = plan;
    const encrypted = tunnel.kind === "wireguard";
    if (encrypted) makeTunnelNamespace();
    this.#unfinished = plan;
    const batches = ipBatches(plan, namespaces);
    await run("root", batches.root);
    if (encrypted) {
      this.#keys ??= newWireguardKeys();
      setLink(tunnel, this.#keys.privateKey);
      await run("tunnel", batches.tunnel);
    }
    await run("pod", batches.pod);
    this.#unfinished = undefined;
    this.#applied = json;
  }
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new Fault("invalid_argument", "the pod network plan is not JSON", {}, { cause });
  }
}

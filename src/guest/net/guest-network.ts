import { Fault } from "../../base/fault.ts";
import { Mutex } from "../../base/mutex.ts";
import { type PodNetworkPlan, parsePlan } from "../../podnetwork/index.ts";
import { ipBatches, removalBatch } from "./ip-batches.ts";

/**
 * Runs `ip -batch` in the guest's own namespace or in the pod's.
 * `force` goes on after a line that fails; otherwise a Fault names the line.
 */
export type IpRunner = (namespace: "root" | "pod", batch: string, force?: boolean) => Promise<void>;

/** Guest half of the pod network. */
export class GuestNetwork {
  readonly #run: IpRunner;
  readonly #podNetns: string;
  readonly #mutex = new Mutex();
  #applied = "";
  #unfinished: PodNetworkPlan | undefined;

  constructor(deps: { readonly run: IpRunner; readonly podNetns: string }) {
    this.#run = deps.run;
    this.#podNetns = deps.podNetns;
  }

  /**
   * Makes the pod's namespace what the plan says. The same plan again is success; a guest has only one.
   * @throws Fault invalid_argument naming the plan's field; failed_precondition naming what the kernel refused
   */
  apply(json: string): Promise<void> {
    return this.#mutex.run(async () => {
      if (json === this.#applied) return;
      if (this.#applied !== "")
        throw new Fault("failed_precondition", "this guest has its pod's network already; it takes no other");
      const plan = parsePlan(parseJson(json), "pod network plan");
      if (this.#unfinished !== undefined) await this.#run("pod", removalBatch(this.#unfinished), true);
      this.#unfinished = plan;
      const { root, pod } = ipBatches(plan, this.#podNetns);
      await this.#run("root", root);
      await this.#run("pod", pod);
      this.#unfinished = undefined;
      this.#applied = json;
    });
  }
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new Fault("invalid_argument", "the pod network plan is not JSON", {}, { cause });
  }
}

import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type {
  Assignment,
  BatchCreation,
  Instance,
  InstanceBatch,
  InstanceClass,
  Place,
} from "../../src/provider/index.ts";
import type { Assignments } from "./assignments.ts";
import type { AzureConfig } from "./config.ts";
import { kindOf } from "./faults.ts";
import type { Launcher } from "./launcher.ts";
import type { VmMaker } from "./vm-maker.ts";

/** What a VM that was refused has told: nothing of it is there, or will be. */
const REFUSED: ReadonlySet<string | undefined> = new Set([
  ...["capacity", "not-offered", "quota", "subnet-full", "setup", "auth", "bad-request"],
]);

/** One request makes one VM. The contract's batch is what brings places, and with them the next one when one has no room. */
export class AzureBatches implements BatchCreation {
  readonly maxInstances = 1;
  readonly maxPlaces: number;
  readonly #deps: {
    readonly config: AzureConfig;
    readonly launcher: Launcher;
    readonly maker: VmMaker;
    readonly assignments: Assignments;
  };

  constructor(deps: {
    readonly config: AzureConfig;
    readonly launcher: Launcher;
    readonly maker: VmMaker;
    readonly assignments: Assignments;
  }) {
    this.#deps = deps;
    this.maxPlaces = deps.config.maxCandidates;
  }

  places(wanted: InstanceClass, call: Call): Promise<readonly Place[]> {
    return this.#deps.launcher.places(wanted, call);
  }

  async createInstances(batch: InstanceBatch, call: Call): Promise<readonly Instance[]> {
    const { class: wanted, count, place, admitted } = batch;
    const { maker } = this.#deps;
    const results = await Promise.allSettled(
      Array.from({ length: count }, async (_, index) => {
        const launch = { wanted, place, index, admitted: admitted && index === 0 };
        return maker.settle(await maker.make(launch, call), wanted, call);
      }),
    );
    const made = results.flatMap((r) => (r.status === "fulfilled" ? [r.value] : []));
    const thrown = results.flatMap((r) => (r.status === "rejected" ? [r.reason as unknown] : []));
    // Asked again, all of it: each VM is made once, and whether this one is there is not known.
    const undecided = thrown.find((e) => !REFUSED.has(kindOf(e)));
    if (undecided !== undefined) throw undecided;
    const [refusal] = thrown;
    if (made.length === 0 && refusal !== undefined) throw refusal instanceof Fault ? refusal : Fault.from(refusal);
    return made;
  }

  async assign(id: Instance["id"], assignment: Assignment): Promise<void> {
    this.#deps.assignments.add(id, assignment);
  }
}

import type { Call } from "../../src/base/call.ts";
import type {
  Assignment,
  BatchCreation,
  Instance,
  InstanceBatch,
  InstanceClass,
  Place,
} from "../../src/provider/index.ts";
import type { AwsConfig } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { kindOf } from "./faults.ts";
import type { Launcher } from "./launcher.ts";
import { assignmentTags } from "./tags.ts";
import { isGone, toInstance } from "./to-instance.ts";

export interface AwsBatchesDeps {
  readonly api: Ec2Api;
  readonly config: AwsConfig;
  readonly launcher: Launcher;
  /** Everything that carries the operation's tag and has not ended, as a listing shows it. */
  readonly findByOperation: (wanted: InstanceClass, call: Call) => Promise<readonly Instance[]>;
  readonly onCreated: (instance: Instance) => void;
}

/** Source: EC2 API reference, RunInstances: five requests for 100 instances each rather than one for 500. */
const MAX_INSTANCES = 100;

/** Many instances with one RunInstances, MinCount 1: EC2 makes as many as its pool has. */
export class AwsBatches implements BatchCreation {
  readonly maxInstances = MAX_INSTANCES;
  readonly maxPlaces: number;
  readonly #deps: AwsBatchesDeps;

  constructor(deps: AwsBatchesDeps) {
    this.#deps = deps;
    this.maxPlaces = deps.config.maxCandidates;
  }

  places(wanted: InstanceClass, call: Call): Promise<readonly Place[]> {
    return this.#deps.launcher.places(wanted, call);
  }

  async createInstances(batch: InstanceBatch, call: Call): Promise<readonly Instance[]> {
    const { launcher, config, findByOperation, onCreated } = this.#deps;
    try {
      const made = await launcher.launchBatch(batch, call);
      const instances = made.filter((i) => !isGone(i)).map((i) => toInstance(i, config.publicIp));
      for (const instance of instances) onCreated(instance);
      return instances;
    } catch (e) {
      // The token has been used: some of what it made has ended, or it was used with what has changed since.
      const kind = kindOf(e);
      if (kind !== "ended" && kind !== "mismatch") throw e;
      const made = await findByOperation(batch.class, call);
      if (made.length === 0 && kind === "mismatch") throw e; // to be tried again: the listing does not show it yet
      return made;
    }
  }

  async assign(id: Instance["id"], assignment: Assignment, call: Call): Promise<void> {
    await this.#deps.api.createTags(id, assignmentTags(assignment), call);
  }
}

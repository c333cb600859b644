import type { Call } from "../../src/base/call.ts";
import { type Clock, sleepOn } from "../../src/base/clock.ts";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { Logger } from "../../src/base/log.ts";
import type { Instance, InstanceClass } from "../../src/provider/index.ts";
import type { AzureConfig } from "./config.ts";
import { faultOf, kindOf } from "./faults.ts";
import type { Launch, Launcher } from "./launcher.ts";
import type { Recent } from "./recent.ts";
import { OPERATION_TAG, tag } from "./tags.ts";
import { toInstance, type VmView } from "./to-instance.ts";
import type { VmEnder } from "./vm-ender.ts";
import type { VmReader } from "./vm-reader.ts";
import { stateOf } from "./vm-state.ts";

export interface VmMakerDeps {
  readonly launcher: Launcher;
  readonly reader: VmReader;
  readonly ender: VmEnder;
  readonly recent: Recent;
  readonly config: AzureConfig;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Answers after which Azure may have made something all the same: the same is asked again, and nothing is removed. */
const UNDECIDED: ReadonlySet<string | undefined> = new Set(["transient", "throttled", "busy", "unknown", undefined]);

/** Makes VMs, each at most once for an operation: its name follows from the operation, and Azure makes no second one. */
export class VmMaker {
  readonly #deps: VmMakerDeps;

  constructor(deps: VmMakerDeps) {
    this.#deps = deps;
  }

  /** Resolves when Azure has accepted the VM, or has accepted it before. @throws Fault of faults.ts */
  async make(launch: Launch, call: Call): Promise<Instance> {
    const { launcher, recent, reader, ender, log } = this.#deps;
    const id = launcher.idOf(launch.wanted, launch.index);
    if (recent.isDeleted(id) || ender.isEnding(id)) throw operationEnded(launch.wanted, id);
    try {
      const instance = await launcher.launch(launch, call);
      recent.noteCreated(instance);
      reader.note(id, undefined);
      log.info({ instance: id, place: launch.place }, "Azure has accepted the VM");
      return instance;
    } catch (e) {
      if (kindOf(e) === "exists") return this.#madeBefore(id, launch.wanted, call);
      if (!UNDECIDED.has(kindOf(e)) && !call.signal.aborted) ender.clean(id); // a refusal may leave an interface
      throw e;
    }
  }

  /**
   * Waits until Azure has found room for it or says that it has not: a creation is accepted first. After `settleMs` it is
   * taken as it is. @throws Fault of faults.ts for one that has failed, which is being removed
   */
  async settle(instance: Instance, wanted: InstanceClass, call: Call): Promise<Instance> {
    const { reader, config, clock } = this.#deps;
    const until = clock.now().getTime() + config.settleMs;
    let latest = instance;
    while (clock.now().getTime() < until) {
      const view = await reader.read(instance.id, config.pollMs, call);
      if (view !== undefined) {
        latest = this.#checked(view, wanted);
        if (latest.addresses.length > 0 && stateOf(view.vm).placed) return latest;
      }
      await sleepOn(clock, Math.min(config.pollMs, Math.max(1, until - clock.now().getTime())), call);
    }
    return latest;
  }

  async #madeBefore(id: InstanceId, wanted: InstanceClass, call: Call): Promise<Instance> {
    const { reader, recent } = this.#deps;
    const view = await reader.read(id, 0, call);
    if (view === undefined) {
      const made = recent.created(id);
      if (made !== undefined) return made;
      // Not shown yet, or not any more: the next try will tell.
      throw new Fault("unavailable", `VM ${id} exists, but Azure does not show it yet`, {
        ...{ provider: "azure", instanceId: id, kind: "transient" },
      });
    }
    if (tag(view.vm.tags, OPERATION_TAG) !== wanted.tags.createOperation) {
      const message = `VM ${id} exists and is not of ${wanted.tags.createOperation}: its tags were changed, remove it`;
      throw new Fault("failed_precondition", message, { provider: "azure", instanceId: id, kind: "setup" });
    }
    if (stateOf(view.vm).state === "deleting") throw operationEnded(wanted, id);
    return this.#checked(view, wanted);
  }

  #checked(view: VmView, wanted: InstanceClass): Instance {
    const instance = toInstance(view);
    this.#deps.recent.noteSeen(instance);
    const { error, placed } = stateOf(view.vm);
    if (instance.state !== "failed") return instance;
    if (instance.addresses.length > 0 && placed) return instance; // it ran: whoever has it is told why it ended
    this.#deps.ender.clean(instance.id);
    const said = error ?? { code: "Failed", message: instance.reason ?? "Azure gives no reason" };
    const context = { instanceId: instance.id, operationId: wanted.tags.createOperation };
    throw faultOf(said, "create VM", { region: this.#deps.config.location, ...context });
  }
}

/** A new VM could be one too many: whoever ended the first may have done so because the pod is gone. */
function operationEnded({ tags }: InstanceClass, instanceId: InstanceId): Fault {
  const message = `VM ${instanceId} that ${tags.createOperation} made has ended: a new operation is needed for a new one`;
  const context = { provider: "azure", instanceId, operationId: tags.createOperation, kind: "setup" };
  return new Fault("failed_precondition", message, context);
}

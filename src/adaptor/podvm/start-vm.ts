import { type Call, withDeadline } from "../../base/call.ts";
import { realClock, sleepOn } from "../../base/clock.ts";
import { Fault } from "../../base/fault.ts";
import type { InstanceId, SandboxId } from "../../base/ids.ts";
import { backoffMs, ended } from "../../base/retry.ts";
import type { Attempt, OperationHandler } from "../operation/index.ts";
import type { CreateIntent, OperationRecord, SandboxRecord } from "../store/index.ts";
import { checkUsable, noteInstance } from "./accept-instance.ts";
import { amend } from "./amend.ts";
import { deleteUntilGone, POLL_BASE_MS, POLL_MAX_MS } from "./delete-until-gone.ts";
import type { PodVmDeps } from "./deps.ts";
import { specOf } from "./instance-spec.ts";
import { NEVER_READY } from "./tell-console.ts";

/** A cloud that does not take volumes back in this time is not waited for, ms. */
const DETACH_MS = 15_000;

/** What a step sees; the record is the newest, read again before each step. */
export interface StepContext {
  readonly deps: PodVmDeps;
  readonly record: SandboxRecord;
  readonly intent: CreateIntent;
  /** An earlier attempt may have got somewhere. */
  readonly again: boolean;
  readonly call: Call;
}

/** One step of a start. `run` and `undo` may each be called any number of times, also after a crash half-way. */
export interface StartStep {
  readonly name: string;
  run(context: StepContext): Promise<void>;
  undo(context: StepContext): Promise<void>;
}

const createInstance: StartStep = {
  name: "create-instance",
  async run({ deps, record, intent, again, call }) {
    if (record.instance !== undefined) return;
    const spec = specOf(record, intent, deps);
    if (deps.launches !== undefined) return deps.launches.obtain(record.id, spec, again, call);
    const instance = await deps.provider.createInstance(spec, call);
    checkUsable(instance);
    await noteInstance(deps.store.sandboxes, record.id, instance);
  },
  async undo({ deps, record, intent, call }) {
    // Without an id the answer to the create call was never written down: the tag finds what it made. What a batch makes
    // is nobody's until it is in a record, and the batch sees to what stays nobody's.
    const id = record.instance?.id ?? (deps.launches === undefined ? await findByToken(deps, intent, call) : undefined);
    if (id !== undefined) await deleteUntilGone(deps, id, call);
  },
};

/** Before the node is told an address: what attaches them says why it could not, and a guest that is dialled has them. */
const attachVolumes: StartStep = {
  name: "attach-volumes",
  async run({ deps, record, call }) {
    const { instance, request } = record;
    if (instance === undefined || request.volumes === undefined || instance.addresses.length > 0) return;
    await deps.provider.volumes?.attach(instance.id, request.volumes, call);
  },
  async undo({ deps, record, call }) {
    const { instance, request } = record;
    if (instance === undefined || request.volumes === undefined) return;
    try {
      await deps.provider.volumes?.detach(instance.id, request.volumes, withDeadline(DETACH_MS, call));
    } catch (err) {
      // The VM's end lets go of them as well.
      deps.log.warn({ err, sandbox: record.id, instance: instance.id }, "volumes stay attached until the VM is gone");
    }
  },
};

const awaitAddress: StartStep = {
  name: "await-address",
  async run({ deps, record, call }) {
    for (let poll = 0, instance = record.instance; instance?.addresses.length === 0; poll++) {
      await sleepOn(deps.clock ?? realClock, backoffMs(poll, POLL_BASE_MS, POLL_MAX_MS), call);
      const seen = await deps.provider.getInstance(instance.id, call);
      if (seen === undefined) {
        throw new Fault("failed_precondition", `instance ${instance.id} went away before it had an address`, {
          instanceId: instance.id,
        });
      }
      checkUsable(seen);
      if (seen.addresses.length === 0) continue;
      instance = (await noteInstance(deps.store.sandboxes, record.id, seen))?.instance;
    }
  },
  async undo() {
    // Nothing of its own: the address goes with the instance.
  },
};

/** The start of a pod VM, in order. Undone from the last to the first. */
export const START_STEPS: readonly StartStep[] = [createInstance, attachVolumes, awaitAddress];

/** Handler of `start-vm`: runs the steps; when the start cannot succeed any more, says so in the record and has it undone. */
export function startVmHandler(deps: PodVmDeps): OperationHandler {
  return async (operation, attempt) => {
    const id = operation.subject as SandboxId;
    try {
      for (const step of START_STEPS) await runStep(deps, operation, step, attempt);
    } catch (e) {
      const fault = attempt.call.signal.aborted ? ended(attempt.call, e) : Fault.from(e, { sandboxId: id });
      const interrupted = fault.code === "cancelled" || fault.code === "aborted";
      if (!interrupted && (attempt.last || !fault.retryable)) await giveUp(deps, id, fault);
      throw fault;
    }
  };
}

async function runStep(deps: PodVmDeps, operation: OperationRecord, step: StartStep, attempt: Attempt): Promise<void> {
  const id = operation.subject as SandboxId;
  await attempt.fence();
  const record = await deps.store.sandboxes.get(id);
  if (record?.intent === undefined || (record.phase !== "creating" && record.phase !== "booting")) {
    throw new Fault("cancelled", `sandbox ${id} is ${record?.phase ?? "gone"}: its start is over`, { sandboxId: id });
  }
  const again = operation.attempt > 1;
  await step.run({ deps, record, intent: record.intent, again, call: attempt.call });
}

async function giveUp(deps: PodVmDeps, id: SandboxId, fault: Fault): Promise<void> {
  const lastFault = { code: fault.code, message: fault.fullMessage, at: deps.now().toISOString() };
  // One turn of the event loop: the two reach the disk together.
  await Promise.all([
    amend(deps.store.sandboxes, id, ({ phase }) =>
      phase === "creating" || phase === "booting" ? { phase: "failed", lastFault } : undefined,
    ),
    deps.queue.submit({ kind: "stop-vm", subject: id, input: { reason: "its start failed", ...NEVER_READY } }),
  ]);
}

async function findByToken(deps: PodVmDeps, intent: CreateIntent, call: Call): Promise<InstanceId | undefined> {
  const all = await deps.provider.listInstances(deps.cluster, call);
  return all.find((instance) => instance.tags.createOperation === intent.createOperation)?.id;
}

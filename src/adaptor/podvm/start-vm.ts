import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { InstanceId, SandboxId } from "../../base/ids.ts";
import { backoffMs, ended, sleep } from "../../base/retry.ts";
import { GUEST_PORT } from "../../guestwire/index.ts";
import type { Instance } from "../../provider/index.ts";
import type { Attempt, OperationHandler } from "../operation/index.ts";
import type { AcceptedInstance, CreateIntent, SandboxChange, SandboxRecord } from "../store/index.ts";
import { amend } from "./amend.ts";
import type { PodVmDeps } from "./deps.ts";
import { instanceSpec } from "./instance-spec.ts";

const POLL_BASE_MS = 100;
const POLL_MAX_MS = 2000;

/** What a step sees; the record is the newest, read again before each step. */
export interface StepContext {
  readonly deps: PodVmDeps;
  readonly record: SandboxRecord;
  readonly intent: CreateIntent;
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
  async run({ deps, record, intent, call }) {
    if (record.instance !== undefined) return;
    const spec = instanceSpec(record, intent, deps);
    const instance = await deps.provider.createInstance(spec, call);
    checkUsable(instance);
    await noteInstance(deps, record.id, instance);
  },
  async undo({ deps, record, intent, call }) {
    // Without an id the answer to the create call was never written down: the tag finds what it made.
    const id = record.instance?.id ?? (await findByToken(deps, intent, call));
    if (id !== undefined) await deleteUntilGone(deps, id, call);
  },
};

const awaitAddress: StartStep = {
  name: "await-address",
  async run({ deps, record, call }) {
    for (let poll = 0, instance = record.instance; instance?.addresses.length === 0; poll++) {
      await sleep(backoffMs(poll, POLL_BASE_MS, POLL_MAX_MS), call);
      const seen = await deps.provider.getInstance(instance.id, call);
      if (seen === undefined) {
        throw new Fault("failed_precondition", `instance ${instance.id} went away before it had an address`, {
          instanceId: instance.id,
        });
      }
      checkUsable(seen);
      if (seen.addresses.length === 0) continue;
      instance = (await noteInstance(deps, record.id, seen))?.instance;
    }
  },
  async undo() {
    // Nothing of its own: the address goes with the instance.
  },
};

/** The start of a pod VM, in order. Undone from the last to the first. */
export const START_STEPS: readonly StartStep[] = [createInstance, awaitAddress];

/** Handler of `start-vm`: runs the steps; when the start cannot succeed any more, says so in the record and has it undone. */
export function startVmHandler(deps: PodVmDeps): OperationHandler {
  return async (operation, attempt) => {
    const id = operation.subject as SandboxId;
    try {
      for (const step of START_STEPS) await runStep(deps, id, step, attempt);
    } catch (e) {
      const fault = attempt.call.signal.aborted ? ended(attempt.call, e) : Fault.from(e, { sandboxId: id });
      const interrupted = fault.code === "cancelled" || fault.code === "aborted";
      if (!interrupted && (attempt.last || !fault.retryable)) await giveUp(deps, id, fault);
      throw fault;
    }
  };
}

async function runStep(deps: PodVmDeps, id: SandboxId, step: StartStep, attempt: Attempt): Promise<void> {
  await attempt.fence();
  const record = await deps.store.sandboxes.get(id);
  if (record?.intent === undefined || (record.phase !== "creating" && record.phase !== "booting")) {
    throw new Fault("cancelled", `sandbox ${id} is ${record?.phase ?? "gone"}: its start is over`, { sandboxId: id });
  }
  await step.run({ deps, record, intent: record.intent, call: attempt.call });
}

async function giveUp(deps: PodVmDeps, id: SandboxId, fault: Fault): Promise<void> {
  const lastFault = { code: fault.code, message: fault.fullMessage, at: deps.now().toISOString() };
  // One turn of the event loop: the two reach the disk together.
  await Promise.all([
    amend(deps.store.sandboxes, id, ({ phase }) =>
      phase === "creating" || phase === "booting" ? { phase: "failed", lastFault } : undefined,
    ),
    deps.queue.submit({ kind: "stop-vm", subject: id, input: { reason: "its start failed" } }),
  ]);
}

/** Writes down what the provider said; the phase follows from whether an address is known. */
function noteInstance(deps: PodVmDeps, id: SandboxId, instance: Instance): Promise<SandboxRecord | undefined> {
  const accepted: AcceptedInstance = {
    id: instance.id,
    addresses: instance.addresses,
    port: instance.tunnelPort ?? GUEST_PORT,
  };
  return amend(deps.store.sandboxes, id, ({ phase }): SandboxChange => {
    const advance = phase === "creating" && accepted.addresses.length > 0;
    return advance ? { instance: accepted, phase: "booting" } : { instance: accepted };
  });
}

function checkUsable(instance: Instance): void {
  if (instance.state !== "failed" && instance.state !== "deleting") return;
  const reason = instance.reason ?? "the provider gives no reason";
  throw new Fault("failed_precondition", `instance ${instance.id} is ${instance.state}: ${reason}`, {
    instanceId: instance.id,
  });
}

async function findByToken(deps: PodVmDeps, intent: CreateIntent, call: Call): Promise<InstanceId | undefined> {
  const all = await deps.provider.listInstances(deps.cluster, call);
  return all.find((instance) => instance.tags.createOperation === intent.createOperation)?.id;
}

/** Asks until the provider says "gone". @throws the provider's Fault, or the call's end */
export async function deleteUntilGone(deps: Pick<PodVmDeps, "provider">, id: InstanceId, call: Call): Promise<void> {
  for (let poll = 0; (await deps.provider.deleteInstance(id, call)) !== "gone"; poll++) {
    await sleep(backoffMs(poll, POLL_BASE_MS, POLL_MAX_MS), call);
  }
}

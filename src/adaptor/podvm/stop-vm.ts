import type { InstanceId, SandboxId } from "../../base/ids.ts";
import type { OperationHandler } from "../operation/index.ts";
import { amend } from "./amend.ts";
import { deleteUntilGone } from "./delete-until-gone.ts";
import type { PodVmDeps } from "./deps.ts";
import { readOwners } from "./ownership.ts";
import { START_STEPS } from "./start-vm.ts";
import { tellConsole } from "./tell-console.ts";

/** Handler of `stop-vm`: undoes the steps of the start, last first, whichever of them had been taken. */
export function stopVmHandler(deps: PodVmDeps): OperationHandler {
  return async (operation, attempt) => {
    const id = operation.subject as SandboxId;
    await tellConsole(deps, operation, attempt.call);
    for (const step of START_STEPS.toReversed()) {
      await attempt.fence();
      const record = await deps.store.sandboxes.get(id);
      if (record?.intent === undefined) break; // nothing was ever asked of the provider, or all of it is undone
      await step.undo({ deps, record, intent: record.intent, again: true, call: attempt.call });
    }
    const after = await amend(deps.store.sandboxes, id, ({ phase }) => ({
      intent: undefined,
      instance: undefined,
      // A failed start stays to be seen until the node has it stopped.
      phase: phase === "stopping" ? "gone" : phase,
    }));
    deps.log.info({ sandbox: id, phase: after?.phase, reason: operation.input.reason }, "pod VM removed");
  };
}

/** Handler of `collect-instance`: deletes an instance that no record owns; the last look is taken right before. */
export function collectInstanceHandler(deps: PodVmDeps): OperationHandler {
  return async (operation, attempt) => {
    const id = operation.subject as InstanceId;
    await attempt.fence();
    // An order from before the store lost records may be for what a lost record owns; a new look makes a new order.
    if (new Date(operation.submittedAt) < deps.store.epoch.createdAt) return;
    const instance = await deps.provider.getInstance(id, attempt.call);
    if (instance === undefined) return;
    if ((await readOwners(deps.store, true)).owns(instance)) {
      deps.log.warn({ instance: id }, "an instance taken for an orphan has an owner and is kept");
      return;
    }
    await deleteUntilGone(deps, id, attempt.call);
    deps.log.warn({ instance: id, createOperation: instance.tags.createOperation }, "orphan instance removed");
  };
}

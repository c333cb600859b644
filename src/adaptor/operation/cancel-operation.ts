import type { OperationId } from "../../base/ids.ts";
import type { OperationRecord, OperationStore } from "../store/index.ts";

/**
 * Cancels what is queued at once; what runs is asked to end. For every queue alike: the record says what is cancelled.
 * @returns whether there was something to cancel
 */
export async function cancelOperation(
  deps: { readonly store: OperationStore; readonly onOver?: ((operation: OperationRecord) => void) | undefined },
  id: OperationId,
  reason: string,
): Promise<boolean> {
  const { store, onOver } = deps;
  if (!(await store.cancelQueued(id, reason))) return store.requestCancel(id, reason);
  const operation = await store.get(id);
  if (operation !== undefined) onOver?.(operation);
  return true;
}

import type { Call } from "../../base/call.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import type { OperationId } from "../../base/ids.ts";
import { ended, race, sleep } from "../../base/retry.ts";
import type { OperationRecord, OperationStore } from "../store/index.ts";

/** A shared store that was away may have lost the news: it is asked now and then. */
const LOOK_MS = 2000;

/** Resolves when the operation is over. @throws Fault not_found; the call's end */
export async function waitUntilOver(store: OperationStore, id: OperationId, call: Call): Promise<OperationRecord> {
  const over = deferred<void>();
  const unwatch = store.watch((operation) => {
    if (operation.id === id && operation.finishedAt !== undefined) over.resolve();
  });
  try {
    for (;;) {
      const operation = await store.get(id);
      if (operation === undefined) throw new Fault("not_found", `operation ${id} is unknown`, { operationId: id });
      if (operation.finishedAt !== undefined) return operation;
      const looking = new AbortController();
      await race(Promise.race([over.promise, sleep(LOOK_MS, looking)]), call).finally(() => looking.abort());
      if (call.signal.aborted) throw ended(call);
    }
  } finally {
    unwatch();
  }
}

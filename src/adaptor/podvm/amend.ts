import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { SandboxChange, SandboxRecord, SandboxStore } from "../store/index.ts";

/**
 * Reads, decides and writes, again from the start whenever someone else wrote in between.
 * @param decide undefined = leave it as it is; what it throws ends the attempt
 * @returns the record as it is now, undefined when there is none
 */
export async function amend(
  store: SandboxStore,
  id: SandboxId,
  decide: (record: SandboxRecord) => SandboxChange | undefined,
): Promise<SandboxRecord | undefined> {
  for (;;) {
    const current = await store.get(id);
    if (current === undefined) return undefined;
    const change = decide(current);
    if (change === undefined) return current;
    try {
      return await store.update(current, change);
    } catch (e) {
      if (!(e instanceof Fault && e.code === "aborted")) throw e;
    }
  }
}

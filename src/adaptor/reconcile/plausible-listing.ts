import type { Instance } from "../../provider/index.ts";
import type { AdaptorStore } from "../store/index.ts";

/** Fewer may well have been deleted by hand. */
const FEW = 2;

/** Whether so many instances are missing from a listing that it is more likely wrong than they are gone. */
export function isMassLoss(missing: number, of: number): boolean {
  return missing > FEW && missing * 2 > of;
}

/** Whether a listing shows most of the instances that records say live. */
export async function isPlausible(store: AdaptorStore, instances: readonly Instance[]): Promise<boolean> {
  const listed = new Set(instances.map((i) => i.id));
  let living = 0;
  let missing = 0;
  for await (const part of store.sandboxes.scan(["booting", "ready"])) {
    for (const { instance } of part) {
      if (instance === undefined) continue;
      living++;
      if (!listed.has(instance.id)) missing++;
    }
  }
  return !isMassLoss(missing, living);
}

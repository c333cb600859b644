import type { Call } from "../../base/call.ts";
import { type Clock, realClock, sleepOn } from "../../base/clock.ts";
import type { InstanceId } from "../../base/ids.ts";
import { backoffMs } from "../../base/retry.ts";
import type { Provider } from "../../provider/index.ts";

export const POLL_BASE_MS = 100;
export const POLL_MAX_MS = 2000;

/** Asks until the provider says "gone". @throws the provider's Fault, or the call's end */
export async function deleteUntilGone(
  { provider, clock = realClock }: { readonly provider: Provider; readonly clock?: Clock | undefined },
  id: InstanceId,
  call: Call,
): Promise<void> {
  for (let poll = 0; (await provider.deleteInstance(id, call)) !== "gone"; poll++) {
    await sleepOn(clock, backoffMs(poll, POLL_BASE_MS, POLL_MAX_MS), call);
  }
}

import { setTimeout as delay } from "node:timers/promises";
import { withDeadline } from "../../src/base/call.ts";
import type { Fault } from "../../src/base/fault.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { Instance, Provider } from "../../src/provider/index.ts";

const PATIENCE_MS = 30_000;
const POLL_MS = 10;

/** As the adaptor does it. */
export async function deleteUntilGone(provider: Provider, id: InstanceId): Promise<void> {
  const call = withDeadline(PATIENCE_MS);
  while ((await provider.deleteInstance(id, call)) !== "gone") await delay(POLL_MS, undefined, { signal: call.signal });
}

/** Waits until it runs and has an address, or has failed. */
export async function settledInstance(provider: Provider, id: InstanceId): Promise<Instance | undefined> {
  for (const call = withDeadline(PATIENCE_MS); ; await delay(POLL_MS, undefined, { signal: call.signal })) {
    const instance = await provider.getInstance(id, call);
    const settled = instance?.state === "running" && instance.addresses.length > 0;
    if (instance === undefined || settled || instance.state === "failed") return instance;
  }
}

/** What work throws; that it throws nothing is an error. */
export async function faultOf(work: Promise<unknown>): Promise<Fault> {
  const thrown: unknown = await work.then(
    () => new Error("nothing was thrown"),
    (e: unknown) => e,
  );
  if (thrown instanceof Error && thrown.name === "Fault") return thrown as Fault;
  throw thrown;
}

/** Waits for what comes about by itself. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const call = withDeadline(PATIENCE_MS); !(await holds()); )
    await delay(POLL_MS, undefined, { signal: call.signal });
}

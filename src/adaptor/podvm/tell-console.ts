import { type Call, withDeadline } from "../../base/call.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { OperationRecord } from "../store/index.ts";
import type { PodVmDeps } from "./deps.ts";

/** Input of `stop-vm` for a sandbox whose guest was never heard of. */
export const NEVER_READY = { neverReady: "true" } as const;

const CONSOLE_BYTES = 8 * 1024;
/** A cloud that does not tell is not waited for: the VM costs money, ms. */
const CONSOLE_MS = 5_000;

/**
 * Writes the console of a VM whose start failed to the log, for whoever asks why: with the VM it is gone. Once, and
 * nothing depends on it.
 */
export async function tellConsole(
  { provider, store, log }: Pick<PodVmDeps, "provider" | "store" | "log">,
  operation: OperationRecord,
  call: Call,
): Promise<void> {
  if (operation.attempt > 1 || operation.input.neverReady !== NEVER_READY.neverReady) return;
  const id = operation.subject as SandboxId;
  const instance = (await store.sandboxes.get(id))?.instance;
  if (instance === undefined) return;
  const fields = { sandbox: id, instance: instance.id, reason: operation.input.reason };
  try {
    const text = await provider.consoleOutput(instance.id, CONSOLE_BYTES, withDeadline(CONSOLE_MS, call));
    if (text === undefined || text === "")
      log.warn(fields, "the VM never became ready, and has no console that could be read");
    else log.warn({ ...fields, console: text }, "the VM never became ready; the end of its console");
  } catch (err) {
    log.warn({ ...fields, err }, "the VM never became ready, and its console could not be read");
  }
}

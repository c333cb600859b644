import { existsSync } from "node:fs";
import { open } from "node:fs/promises";
import { Fault } from "../../base/fault.ts";
import type { GuestLog } from "../system/guest-log.ts";

/**
 * A cloud starts a machine again after a crash of its kernel, or because an operator asks for it. Its pod is lost all the
 * same, and so is the space that the root file system has grown into.
 * @throws Fault failed_precondition when this disk has carried a pod before
 */
export function checkFirstBoot(disk: string): void {
  if (!existsSync(marker(disk))) return;
  throw new Fault("failed_precondition", "this VM was started a second time: its pod did not survive the first");
}

/** Writes the mark that the next start finds, and waits until the disk has it. */
export async function markBooted(disk: string, log: GuestLog): Promise<void> {
  try {
    await using file = await open(marker(disk), "w", 0o600);
    await file.sync();
  } catch (e) {
    // The pod can run; a second start would only be noticed by whoever talks to the guest.
    log.warn("this start could not be marked on the disk", { err: (e as Error).message });
  }
}

function marker(disk: string): string {
  return `${disk}/booted`;
}

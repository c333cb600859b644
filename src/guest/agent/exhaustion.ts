import { statfsSync } from "node:fs";
import { Fault } from "../../base/fault.ts";
import type { AgentPaths } from "./paths.ts";

/** "12 MiB free of 9876 MiB" */
export function spaceText(path: string): string {
  const { bsize, bavail, blocks } = statfsSync(path);
  const mib = (n: number): number => Math.floor((n * bsize) / 2 ** 20);
  return `${mib(bavail)} MiB free of ${mib(blocks)} MiB`;
}

/**
 * Says which of the guest's resources was used up when a system call failed for lack of space. Other errors pass.
 * @param thrown by Node's file system functions or the agent's own system calls
 * @param place what was written to, when the error's path does not tell
 */
export function nameExhaustion(thrown: unknown, paths: AgentPaths, place?: "memory"): unknown {
  const { code, path } = thrown as NodeJS.ErrnoException;
  if (code === "ENOMEM") return new Fault("resource_exhausted", "guest memory full", {}, { cause: thrown });
  if (code !== "ENOSPC") return thrown;
  // Everything that is not on the disk is in tmpfs, which is memory.
  const full =
    place === "memory" || path?.startsWith(paths.run)
      ? `guest memory full: ${paths.run} has ${spaceText(paths.run)}`
      : `guest disk full: ${spaceText(paths.disk)}`;
  return new Fault("resource_exhausted", full, {}, { cause: thrown });
}

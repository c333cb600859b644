import { readdirSync, rmSync } from "node:fs";
import type { AgentPaths } from "./paths.ts";

/**
 * Removes what CopyFile has made for one container alone, whether that container came to exist or not.
 * Source: kata's names, `<container id>-<16 hex>-<name>`.
 */
export function removeCopies(paths: AgentPaths, containerId: string): void {
  const shared = `${paths.run}/shared/containers`;
  for (const name of readdirSync(shared)) {
    const own = name.startsWith(`${containerId}-`) && /^[0-9a-f]{16}-/.test(name.slice(containerId.length + 1));
    if (own) rmSync(`${shared}/${name}`, { recursive: true, force: true });
  }
}

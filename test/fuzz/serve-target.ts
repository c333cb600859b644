import { readdirSync } from "node:fs";
import type { Usage } from "./target.ts";

declare const gc: () => void;

/** On the target's side: says that it is ready, tells what it holds when asked, ends with the process that attacks it. */
export function serveTarget(ready: unknown): void {
  process.on("disconnect", () => process.exit(0));
  process.on("SIGTERM", () => process.exit(0));
  process.on("message", () => process.send?.(usage()));
  process.send?.(ready);
}

function usage(): Usage {
  gc();
  gc();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rssBytes: rss, usedBytes: heapUsed + external, descriptors: readdirSync("/proc/self/fd").length };
}

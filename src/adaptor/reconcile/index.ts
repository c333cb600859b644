export { Loops } from "./loops.ts";
export { LostInstances } from "./lost-instances.ts";
export { OrphanInstances } from "./orphan-instances.ts";
export type { Pass, Reconciler } from "./reconciler.ts";
export { StuckSandboxes } from "./stuck-sandboxes.ts";

export { type LoopStatus, Loops } from "./loops.ts";
export { LostInstances } from "./lost-instances.ts";
export { LostNodes } from "./lost-nodes.ts";
export { OrphanInstances } from "./orphan-instances.ts";
export type { Fence, Pass, Reconciler } from "./reconciler.ts";
export { Recoveries } from "./recoveries.ts";
export { StuckSandboxes } from "./stuck-sandboxes.ts";

import type { Call } from "../../base/call.ts";

/** What one look found. */
export interface Pass {
  readonly examined: number;
  readonly repaired: number;
  /** The next look is due after this rather than after a whole interval, ms: something waits to be seen a second time. */
  readonly againMs?: number;
}

/**
 * Asked right before an effect: with several adaptors on one store a loop runs on one of them, and one that was given up
 * (it hung, it was frozen) must not act when it goes on. @throws Fault aborted
 */
export type Fence = () => Promise<void>;

/** For a loop that nobody else runs. */
export const alone: Fence = async () => undefined;

/** Closes one gap between the store and the world. Looks at state, not at events; safe to run at any time and twice. */
export interface Reconciler {
  readonly name: string;
  readonly intervalMs: number;
  reconcile(call: Call, fence?: Fence): Promise<Pass>;
}

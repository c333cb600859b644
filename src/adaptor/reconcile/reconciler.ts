import type { Call } from "../../base/call.ts";

/** What one look found. */
export interface Pass {
  readonly examined: number;
  readonly repaired: number;
}

/** Closes one gap between the store and the world. Looks at state, not at events; safe to run at any time and twice. */
export interface Reconciler {
  readonly name: string;
  readonly intervalMs: number;
  reconcile(call: Call): Promise<Pass>;
}

import { forgetCode } from "./code-pages.ts";
import { libc } from "./libc.ts";

/** Bytes that may pass through this process between two collections. */
const INTERVAL_BYTES = 4 << 20;
/** Quiet time after which everything left is given back, ms. */
const IDLE_MS = 2000;

type Collect = (options: { type: "minor" | "major" }) => void;

let passed = 0;
let idle: NodeJS.Timeout | undefined;

/**
 * Counts bytes that were copied through short-lived buffers, and has them collected now and then. V8 would let tens of
 * MiB of them pile up outside of its heap first, and the C library would keep what is freed; but the guest's memory
 * belongs to the pod. Needs `node --expose-gc`; does nothing without it.
 */
export function bytesPassed(bytes: number): void {
  const collect = (globalThis as { gc?: Collect }).gc;
  if (collect === undefined) return;
  passed += bytes;
  if (passed < INTERVAL_BYTES) return;
  passed = 0;
  collect({ type: "minor" });
  tidyWhenQuiet();
}

/**
 * Gives back what start-up, or something that has just ended, needed, as soon as there was no more of it for a second.
 * Does nothing without `node --expose-gc`.
 */
export function tidyWhenQuiet(): void {
  const collect = (globalThis as { gc?: Collect }).gc;
  if (collect === undefined) return;
  idle?.refresh();
  idle ??= setTimeout(() => {
    idle = undefined;
    collect({ type: "major" });
    libc("int malloc_trim(size_t pad)", 0);
    forgetCode();
  }, IDLE_MS).unref();
}

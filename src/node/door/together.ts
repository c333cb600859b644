import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";

/**
 * Does several things side by side and waits for all of them. As soon as one fails the others' call ends, so that nothing
 * goes on behind the failure.
 * @returns what each gave
 * @throws what failed first
 */
export async function together<T extends readonly unknown[]>(
  call: Call,
  ...works: { readonly [K in keyof T]: (call: Call) => Promise<T[K]> }
): Promise<T> {
  const stop = new AbortController();
  const shared = { ...call, signal: AbortSignal.any([call.signal, stop.signal]) };
  let first: { readonly cause: unknown } | undefined;
  const begun = works.map(async (work) => {
    try {
      return await work(shared);
    } catch (cause) {
      first ??= { cause };
      stop.abort(new Fault("cancelled", "what was done beside it failed", {}, { cause }));
      return undefined;
    }
  });
  const results = await Promise.all(begun);
  if (first !== undefined) throw first.cause;
  return results as unknown as T;
}

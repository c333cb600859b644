const LOOK_MS = 250;
/** Shorter ones are usual where many processes share two cores. */
const STALL_MS = 1_500;

/**
 * Tells when this process did not get to run for long: then the machine was taken by others, and what happened in that
 * time says little of the programs under test.
 * @param tell gets how long it lasted, ms
 * @returns the function that ends it
 */
export function watchStalls(tell: (ms: number) => void): () => void {
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    const lost = now - last - LOOK_MS;
    last = now;
    if (lost >= STALL_MS) tell(lost);
  }, LOOK_MS).unref();
  return () => clearInterval(timer);
}

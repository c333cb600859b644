/** Round trips that were made one after the other. */
export interface RoundTrips {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly callsPerSecond: number;
}

/** Value at `share` (0 to 1) of numbers in any order. */
export function quantile(numbers: Iterable<number>, share: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN;
}

export function median(numbers: Iterable<number>): number {
  return quantile(numbers, 0.5);
}

/** One call after the other; what they take is kept, in microseconds. */
export async function oneByOne(call: () => Promise<unknown>, count: number): Promise<RoundTrips> {
  const latencies = new Float64Array(count);
  const start = performance.now();
  for (let i = 0; i < count; i++) {
    const before = performance.now();
    await call();
    latencies[i] = (performance.now() - before) * 1000;
  }
  const callsPerSecond = Math.round((count / (performance.now() - start)) * 1000);
  latencies.sort();
  return { p50Us: at(latencies, 0.5), p99Us: at(latencies, 0.99), callsPerSecond };
}

/** Calls per second with so many on their way all the time. */
export async function inFlight(call: () => Promise<unknown>, width: number, count: number): Promise<number> {
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await call();
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: width }, worker));
  return Math.round((count / (performance.now() - start)) * 1000);
}

/** CPU seconds that this process has used up to now. */
export function ownCpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function at(sorted: Float64Array, share: number): number {
  return Math.round((sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN) * 10) / 10;
}

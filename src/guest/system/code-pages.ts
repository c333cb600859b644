import { readFileSync } from "node:fs";
import { libc } from "./libc.ts";

const MADV_DONTNEED = 4;
const MIN_KIB = 1024;

/** One mapping of /proc/<pid>/smaps, as far as it matters here. */
export interface Mapping {
  readonly address: bigint;
  readonly length: bigint;
}

/**
 * Takes the pages of programs and libraries out of this process that it has not changed. What start-up alone needed (two
 * thirds of Node's code) does not come back; the rest does from the page cache, when it is next used.
 * Only for mappings that cannot be written and hold no page of their own: there the file has the same bytes.
 * Source: madvise(2), proc(5).
 */
export function forgetCode(): void {
  for (const { address, length } of unchangedMappings(readFileSync("/proc/self/smaps", "utf8"))) {
    libc("int madvise(void *address, size_t length, int advice)", address, length, MADV_DONTNEED);
  }
}

/** Large private mappings of files that are neither writable nor changed. */
export function unchangedMappings(smaps: string): Mapping[] {
  const found: Mapping[] = [];
  for (const entry of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ [1-9]\d* +\//.exec(entry);
    const kib = (key: string): number => Number(new RegExp(`^${key}: +(\\d+) kB$`, "m").exec(entry)?.[1] ?? Number.NaN);
    if (head === null || kib("Anonymous") !== 0 || kib("Private_Dirty") !== 0 || !(kib("Rss") >= MIN_KIB)) continue;
    const [address, end] = [BigInt(`0x${head[1]}`), BigInt(`0x${head[2]}`)];
    found.push({ address, length: end - address });
  }
  return found;
}

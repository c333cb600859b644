/** A prefix in the form `10.0.0.0/24`. @throws Error when it is none */
function parsePrefix(prefix: string): { readonly base: number; readonly length: number } {
  const found = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(prefix);
  if (found === null) throw new Error(`${prefix} is no IPv4 prefix`);
  const [a = 0, b = 0, c = 0, d = 0, length = 0] = found.slice(1).map(Number);
  if ([a, b, c, d].some((byte) => byte > 255) || length > 32) throw new Error(`${prefix} is no IPv4 prefix`);
  return { base: ((a << 24) | (b << 16) | (c << 8) | d) >>> 0, length };
}

function format(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

/**
 * What Azure gives out of a subnet, lowest first: the first four addresses and the last are its own.
 * Source: learn.microsoft.com "Azure Virtual Network FAQ", addresses that are reserved within subnets.
 */
export function addressesOf(prefix: string): string[] {
  const { base, length } = parsePrefix(prefix);
  const count = Math.min(2 ** (32 - length), 4096);
  return Array.from({ length: Math.max(0, count - 5) }, (_, i) => format(base + 4 + i));
}

export function isPrefix(text: string): boolean {
  try {
    return parsePrefix(text).length <= 29;
  } catch {
    return false; // that is the answer
  }
}

/** Whether the first prefix lies in the second. */
export function within(inner: string, outer: string): boolean {
  const [a, b] = [parsePrefix(inner), parsePrefix(outer)];
  if (a.length < b.length) return false;
  const size = 2 ** (32 - b.length);
  return Math.floor(a.base / size) === Math.floor(b.base / size);
}

export function overlap(one: string, other: string): boolean {
  return within(one, other) || within(other, one);
}

import type { Platform } from "./types.ts";

/** @throws Error when it is no IPv4 `network/length` */
export function parseCidr(cidr: string): { readonly first: string; readonly length: number } {
  const [first = "", length = ""] = cidr.split("/");
  if (!/^(\d{1,3}\.){3}\d{1,3}$/.test(first) || !/^\d{1,2}$/.test(length)) throw new Error(`"${cidr}" is no network`);
  return { first, length: Number(length) };
}

/** The address `index` places after a network's first; a negative one counts from the end, -1 is the last. */
export function addressAt(cidr: string, index: number): string {
  const { first, length } = parseCidr(cidr);
  const base = first.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const number = index >= 0 ? base + index : base + 2 ** (32 - length) + index;
  return [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join(".");
}

/** The hardware address of the card that has an IPv4 address: as unique in the network, and of the cloud's looks. */
export function macOf(platform: Platform, address: string): string {
  const bytes = address.split(".").map(Number);
  const all = platform === "azure" ? [0x00, 0x0d, 0x3a, ...bytes.slice(1)] : [0x0a, 0x4b, ...bytes];
  return all.map((n) => n.toString(16).padStart(2, "0")).join(":");
}

import { readFileSync } from "node:fs";
import type { NetworkStats } from "../../gen/agent/agent.ts";

/** Counters of every interface in the network namespace of a process; none when it is gone. */
export function networkStats(pid: number): NetworkStats[] {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/net/dev`, "utf8");
  } catch {
    return []; // the process has exited: so has its traffic
  }
  return parseNetDev(text);
}

/** Source: proc(5), /proc/net/dev: eight receive columns, then eight transmit columns. */
export function parseNetDev(text: string): NetworkStats[] {
  return text
    .split("\n")
    .map((line) => /^\s*(\S+):\s*(.*)$/.exec(line))
    .filter((found) => found !== null)
    .map(([, name = "", columns = ""]) => {
      const n = columns.trim().split(/\s+/).map(BigInt);
      const at = (i: number): bigint => n[i] ?? 0n;
      return {
        name,
        rxBytes: at(0),
        rxPackets: at(1),
        rxErrors: at(2),
        rxDropped: at(3),
        txBytes: at(8),
        txPackets: at(9),
        txErrors: at(10),
        txDropped: at(11),
      };
    });
}

import { type Figure, number } from "./figure.ts";

/** What was measured of the stock peers, in another run (2026-11-23): for orientation, never a ratio. */
interface Goal {
  readonly figure: string;
  readonly goal: string;
  /** At most, or at least when `atLeast`. */
  readonly limit: number;
  readonly atLeast?: true;
  readonly peers: string;
}

export interface ComparedGoal extends Goal {
  readonly value: number;
  readonly unit: string;
  readonly reached: boolean;
}

const GOALS: readonly Goal[] = [
  { figure: "launcher.start.p50", goal: "0.7 x of Rust", limit: 5.6, peers: "Rust 8 ms, Go 29 ms" },
  { figure: "memory.perPod", goal: "1/4 of Rust", limit: 1.5, peers: "Rust 6.0 MB, Go 12.9 MB, + 73 MB adaptor" },
  { figure: "adaptor.createAndStart.p50", goal: "1/2", limit: 25.5, peers: "51 ms, VXLAN set-up included" },
  { figure: "adaptor.createAndStart.p99", goal: "1/2", limit: 30.5, peers: "61 ms, VXLAN set-up included" },
  { figure: "tunnel.check.p50", goal: "1/2", limit: 320, peers: "640 us (4.0 x its bare ttrpc)" },
  { figure: "tunnel.check.p99", goal: "1/2", limit: 800, peers: "1,600 us" },
  {
    ...{ figure: "tunnel.check.rate", goal: "2 x", limit: 15_600, atLeast: true },
    peers: "7,800/s (0.21 x its bare ttrpc)",
  },
  { figure: "relay.check.p50", goal: "1/2", limit: 320, peers: "640 us" },
  { figure: "relay.check.p99", goal: "1/2", limit: 800, peers: "1,600 us" },
  { figure: "relay.check.rate", goal: "2 x", limit: 15_600, atLeast: true, peers: "7,800/s" },
  { figure: "tunnel.read32KiB", goal: "3 x", limit: 60, atLeast: true, peers: "20 MB/s (0.20 x its bare ttrpc)" },
  { figure: "tunnel.read1MiB", goal: "3 x", limit: 207, atLeast: true, peers: "69 MB/s (0.27 x its bare ttrpc)" },
  { figure: "volumes.quiet100", goal: "1 % of a core", limit: 1, peers: "Rust looks every 100 ms, Go not at all" },
  { figure: "cloud-calls.aws.create", goal: "1 x", limit: 1, peers: "1, wire contract 4.5" },
  { figure: "cloud-calls.aws.delete", goal: "1 x", limit: 2, peers: "2, wire contract 4.5" },
  { figure: "cloud-calls.azure.create", goal: "1 x", limit: 3, peers: "2 and a poll at least, wire contract 4.5" },
  { figure: "cloud-calls.azure.delete", goal: "1 x", limit: 2, peers: "1 and a poll at least, wire contract 4.5" },
  { figure: "start.powerOn", goal: "1/2", limit: 5.4, peers: "10.8 to 13.6 s, TCG" },
  { figure: "start.guestRss", goal: "1 x", limit: 60, peers: "about 60 MB, agent and forwarder" },
];

/** The goals whose figure was measured. */
export function compareWithGoals(figures: readonly Figure[]): ComparedGoal[] {
  return GOALS.flatMap((goal) => {
    const found = figures.find((f) => f.name === goal.figure);
    if (found === undefined) return [];
    const { value, unit } = found;
    return [{ ...goal, value, unit, reached: goal.atLeast ? value >= goal.limit : value <= goal.limit }];
  });
}

export function goalTable(goals: readonly ComparedGoal[]): string {
  const header = ["figure", "measured", "goal", "", "stock peers (another run, for orientation)"];
  const rows = goals.map((g) => [
    g.figure,
    `${number(g.value)} ${g.unit}`,
    `${g.atLeast ? ">=" : "<="} ${number(g.limit)} ${g.unit} (${g.goal})`,
    g.reached ? "reached" : "not yet",
    g.peers,
  ]);
  const widths = header.map((_, i) => Math.max(...[header, ...rows].map((row) => row[i]?.length ?? 0)));
  return [
    "goals",
    ...[header, ...rows].map((row) => `  ${row.map((c, i) => c.padEnd(widths[i] ?? 0)).join("  ")}`.trimEnd()),
  ].join("\n");
}

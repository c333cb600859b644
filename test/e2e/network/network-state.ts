import type { Fabric, Worker } from "./fabric.ts";

/** What pods may leave on a worker, as lines: links, addresses, routes, rules, fixed neighbours, filters, namespaces. */
export async function networkState(fabric: Fabric, worker: Worker): Promise<readonly string[]> {
  const asks = [
    "ip -o link show",
    "ip -o address show",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "ip -4 rule show",
    "ip -6 rule show",
    "ip neighbour show nud permanent",
    "tc qdisc show",
    "iptables-save",
    "ip6tables-save",
  ];
  const answers = await Promise.all(asks.map((ask) => fabric.on(worker, ask.split(" "))));
  const lines = answers.flatMap((answer, i) => answer.split("\n").map((line) => `${asks[i]}: ${steady(line)}`));
  // Of tables the rules: who has used one leaves its chains, empty. A link's own address comes when it likes.
  return lines.filter((line) => !/: *$|-save: [^-]|route show.* fe80:/.test(line)).toSorted();
}

/** Without what differs from one look to the next: counters, times, a bridge's carrier and the address it takes from its ports. */
function steady(line: string): string {
  return line
    .replace(/\[\d+:\d+\]/, "")
    .replace(/(valid_lft|preferred_lft|expires) \S+/g, "")
    .replace(/^\d+: (\S+?): <.*$/, "$1")
    .replace(/^\d+: /, "")
    .replace(/ (linkdown|dadfailed|tentative)\b/g, "")
    .trim();
}

/** How often each worker's kernel cut or joined packets until now. Source: proc(5), /proc/net/snmp and snmp6. */
export async function fragmentCounts(fabric: Fabric): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = {};
  for (const worker of fabric.workers) {
    const [names = "", values = ""] = (await fabric.on(worker, ["grep", "^Ip:", "/proc/net/snmp"])).split("\n");
    const ipv6 = await fabric.on(worker, ["cat", "/proc/net/snmp6"]);
    for (const name of ["ReasmReqds", "FragCreates"]) {
      counts[`${worker.name} ${name}`] = Number(values.split(" ")[names.split(" ").indexOf(name)]);
      counts[`${worker.name} Ip6${name}`] = Number(new RegExp(`^Ip6${name}\\s+(\\d+)`, "m").exec(ipv6)?.[1]);
    }
  }
  return counts;
}

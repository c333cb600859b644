import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { Mutex } from "../../base/mutex.ts";
import { familyOf } from "../../podnetwork/index.ts";
import type { NetworkCommands } from "./network-commands.ts";

export interface ConntrackBypassDeps {
  readonly commands: NetworkCommands;
  readonly log: Logger;
}

const FAMILIES = { 4: "iptables", 6: "ip6tables" } as const;
/** Others change the tables too: how long to wait for their lock, s. */
const LOCK = ["-w", "5"];

/**
 * Keeps the host's connection tracking away from tunnel packets: it would count each tunnel as a flow, and rules made
 * for Services and network policies would then judge them. Where there is no iptables, or no raw table, nothing tracks
 * them by rules of that kind either, and nothing is done.
 * Source: peer-pods wire contract §3.11, step 1 (raw table, one pair of rules for each VM, found again by their comment).
 */
export class ConntrackBypass {
  readonly #deps: ConntrackBypassDeps;
  /** What is read first must still hold when it is changed. */
  readonly #mutex = new Mutex();

  constructor(deps: ConntrackBypassDeps) {
    this.#deps = deps;
  }

  /** Repeatable; a sandbox's rules for another peer or port are replaced. */
  ensure(sandboxId: string, peer: string, port: number, call: Call): Promise<void> {
    return this.#mutex.run(async () => {
      const command = FAMILIES[familyOf(peer)];
      const mine = await this.#list(command, sandboxId, call);
      if (mine === undefined) return;
      const host = `${peer}/${familyOf(peer) === 4 ? 32 : 128}`;
      const wanted = [
        { chain: "OUTPUT", match: ["-d", host] },
        { chain: "PREROUTING", match: ["-s", host] },
      ];
      const right = wanted.every(({ chain, match }) =>
        mine.some((rule) => rule.includes(`-A ${chain} ${match.join(" ")} `) && rule.includes(`--dport ${port} `)),
      );
      if (right && mine.length === wanted.length) return;
      await this.#delete(command, mine, call);
      for (const { chain, match } of wanted) {
        const rule = [...match, "-p", "udp", "--dport", String(port), "-m", "comment", "--comment", comment(sandboxId)];
        await this.#deps.commands.host(command, [...LOCK, "-t", "raw", "-A", chain, ...rule, "-j", "NOTRACK"], call);
      }
    });
  }

  /** Removes a sandbox's rules; none is success. */
  remove(sandboxId: string, call: Call): Promise<void> {
    return this.#mutex.run(async () => {
      for (const command of Object.values(FAMILIES))
        await this.#delete(command, (await this.#list(command, sandboxId, call)) ?? [], call);
    });
  }

  async #list(command: string, sandboxId: string, call: Call): Promise<readonly string[] | undefined> {
    try {
      const text = await this.#deps.commands.host(command, [...LOCK, "-t", "raw", "-S"], call);
      return text.split("\n").filter((line) => line.split(/[\s"]+/).includes(comment(sandboxId)));
    } catch (err) {
      if (call.signal.aborted) throw err;
      this.#deps.log.debug({ err: Fault.from(err), command }, "no raw table: tunnels are left to connection tracking");
      return undefined;
    }
  }

  async #delete(command: string, rules: readonly string[], call: Call): Promise<void> {
    for (const rule of rules) {
      const args = rule.replace(/^-A/, "-D").replaceAll('"', "").split(" ");
      await this.#deps.commands.host(command, [...LOCK, "-t", "raw", ...args], call);
    }
  }
}

function comment(sandboxId: string): string {
  return `kata-remote:${sandboxId}`;
}

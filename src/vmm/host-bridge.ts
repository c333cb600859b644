import { BlockList, isIPv4 } from "node:net";
import type { Call } from "../base/call.ts";
import { exec } from "../base/exec.ts";
import { Fault } from "../base/fault.ts";
import { sleep } from "../base/retry.ts";

export interface BridgeOptions {
  readonly name: string;
  /** IPv4, `network/length`; the host gets the first address. */
  readonly subnet: string;
  /** Whoever makes VMs on it: no two may, since each gives addresses out by itself. */
  readonly owner: string;
}

interface Link {
  readonly ifname: string;
  readonly ifalias?: string;
}

interface Route {
  readonly dst: string;
  readonly dev?: string;
}

const LEAVE_MS = 3_000;
/** Room for a tunnel's header around the jumbo frames of a pod. */
const MTU = 9050;

/** A bridge of this host that VMs' tap devices hang on. It leads nowhere but to the host. */
export class HostBridge {
  readonly name: string;
  readonly prefixLength: number;
  readonly #options: BridgeOptions;
  readonly #network: number;
  #next: number;

  /** @throws Fault invalid_argument when the subnet is none, or too small */
  constructor(options: BridgeOptions) {
    const [address = "", length = ""] = options.subnet.split("/");
    this.prefixLength = Number(length);
    if (!isIPv4(address) || !/^\d+$/.test(length) || this.prefixLength < 8 || this.prefixLength > 30) {
      throw new Fault(
        "invalid_argument",
        `bridge subnet "${options.subnet}" is not valid: an IPv4 network of 8 to 30 bits is, as in 10.213.64.0/20`,
      );
    }
    this.name = options.name;
    this.#options = options;
    this.#network = (toNumber(address) & (-1 << (32 - this.prefixLength))) >>> 0;
    this.#next = this.#network + 2;
  }

  /** The host's own address on it. */
  get address(): string {
    return toText(this.#network + 1);
  }

  /** The next address that is not taken; one that was given back comes round late. @throws Fault resource_exhausted */
  free(taken: ReadonlySet<string>): string {
    const first = this.#network + 2;
    const last = this.#network + 2 ** (32 - this.prefixLength) - 2;
    for (let tried = first; tried <= last; tried++) {
      const candidate = toText(this.#next);
      this.#next = this.#next === last ? first : this.#next + 1;
      if (!taken.has(candidate)) return candidate;
    }
    throw new Fault(
      "resource_exhausted",
      `every address of ${this.#options.subnet} belongs to a VM: use a larger subnet`,
    );
  }

  /**
   * Makes it, or sees that it is right. Repeatable.
   * @throws Fault failed_precondition when somebody else has the name or the addresses, with the remedy
   */
  async ensure(call: Call): Promise<void> {
    const { name } = this;
    const own = await this.#find(call);
    if (own === undefined) {
      await this.#refuseOverlap(call);
      // Of its own: else it is that of some port, and changes, which guests learn only after a while.
      const mac = macOf(this.address);
      const input = `link add name ${name} address ${mac} type bridge\nlink set dev ${name} alias "${this.#alias}"\n`;
      await exec("ip", ["-batch", "-"], call, { input });
    } else if (own.ifalias !== this.#alias) {
      throw new Fault(
        "failed_precondition",
        `interface ${name} belongs to ${own.ifalias ?? "somebody else"}: set another bridge name and subnet`,
      );
    }
    const address = `${this.address}/${this.prefixLength}`;
    const input = `address replace ${address} dev ${name}\nlink set dev ${name} mtu ${MTU} up\n`;
    await exec("ip", ["-batch", "-"], call, { input });
  }

  /** Removes it, if it is ours and nothing hangs on it, nor just about to leave. */
  async remove(call: Call): Promise<void> {
    if ((await this.#find(call))?.ifalias !== this.#alias) return;
    // A killed VM's tap goes when the last of its threads has, a moment after it counts as dead.
    for (const end = performance.now() + LEAVE_MS; await this.#hasPorts(call); await sleep(50, call))
      if (performance.now() > end) return;
    await exec("ip", ["link", "delete", this.name, "type", "bridge"], call);
  }

  async #hasPorts(call: Call): Promise<boolean> {
    const { stdout } = await exec("ip", ["-json", "link", "show", "master", this.name], call);
    return (JSON.parse(stdout || "[]") as Link[]).length > 0;
  }

  get #alias(): string {
    return `kata-remote ${this.#options.owner}`.replaceAll('"', "").slice(0, 250);
  }

  async #find(call: Call): Promise<Link | undefined> {
    const { stdout } = await exec("ip", ["-json", "link", "show"], call);
    return (JSON.parse(stdout) as Link[]).find((l) => l.ifname === this.name);
  }

  async #refuseOverlap(call: Call): Promise<void> {
    const { stdout } = await exec("ip", ["-json", "-4", "route", "show"], call);
    const mine = new BlockList();
    mine.addSubnet(toText(this.#network), this.prefixLength);
    for (const { dst, dev } of JSON.parse(stdout || "[]") as Route[]) {
      if (dst === "default" || dev === this.name) continue;
      const [address = "", length = "32"] = dst.split("/");
      const other = new BlockList();
      other.addSubnet(address, Number(length));
      if (!mine.check(address) && !other.check(toText(this.#network))) continue;
      throw new Fault(
        "failed_precondition",
        `bridge subnet ${this.#options.subnet} overlaps with ${dst}, which this host reaches through ${dev ?? "another way"}: set another subnet`,
      );
    }
  }
}

/** Hangs a VM's tap device on its bridge: it reaches the host there, and no other VM. Repeatable. */
export async function joinBridge(tap: string, bridge: string, call: Call): Promise<void> {
  const lines = [
    `link set dev ${tap} mtu ${MTU} master ${bridge}`,
    `link set dev ${tap} type bridge_slave isolated on`,
    `link set dev ${tap} up`,
  ];
  await exec("ip", ["-batch", "-"], call, { input: `${lines.join("\n")}\n` });
}

/** A hardware address (02: locally administered) that is as unique on a bridge as the IPv4 address. */
export function macOf(address: string): string {
  return [2, 0x4b, ...address.split(".").map(Number)].map((n) => n.toString(16).padStart(2, "0")).join(":");
}

/** What the guest's network card is told, so that it takes as large packets as the bridge. */
export const BRIDGE_MTU: number = MTU;

function toNumber(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

function toText(n: number): string {
  return [24, 16, 8, 0].map((shift) => (n >>> shift) & 255).join(".");
}

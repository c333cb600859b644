import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { BlockList } from "node:net";
import { extname, join } from "node:path";
import { background } from "../../../src/base/call.ts";
import { exec } from "../../../src/base/exec.ts";
import { addressAt, parseCidr } from "./addresses.ts";
import type { FromNetwork, Lease, ToNetwork } from "./network-messages.ts";
import type { MetadataHandler, SubnetSpec } from "./types.ts";

export interface NetworkOptions {
  readonly cidr: string;
  readonly subnets: readonly SubnetSpec[];
  readonly mtu: number;
  readonly metadataAddresses: readonly string[];
  readonly metadata: MetadataHandler;
  /** Whose an address is. */
  readonly machineAt: (address: string) => string | undefined;
}

/** An IPv4 /16 that this host has no route for, chosen at random: several tests may be at work on one host. */
export async function freeNetwork(): Promise<string> {
  const { stdout } = await exec("ip", ["-json", "-4", "route", "show"], background());
  const taken = (JSON.parse(stdout || "[]") as { dst: string }[]).filter((r) => r.dst !== "default");
  for (let attempt = 0; attempt < 100; attempt++) {
    // A stretch of 10/8 that nothing here has by default.
    const cidr = `10.${randomInt(96, 192)}.0.0/16`;
    const mine = new BlockList();
    mine.addSubnet(addressAt(cidr, 0), 16);
    const overlaps = taken.some(({ dst }) => {
      const { first, length } = parseCidr(dst.includes("/") ? dst : `${dst}/32`);
      const other = new BlockList();
      other.addSubnet(first, length);
      return mine.check(first) || other.check(addressAt(cidr, 0));
    });
    if (!overlaps) return cidr;
  }
  throw new Error("this host has a route for every network that a test may take");
}

/**
 * A cloud's private network in a network namespace: a bridge that machines hang on, which is the router of each subnet
 * and has the metadata addresses. The namespace belongs to a process, so it goes with that, however we end.
 */
export class Network {
  /** This host's own address in it. */
  readonly hostAddress: string;
  readonly #options: NetworkOptions;
  readonly #process: ChildProcess;
  readonly #veth: string;
  readonly #leases = new Map<string, Lease>();

  private constructor(options: NetworkOptions, process: ChildProcess) {
    this.#options = options;
    this.#process = process;
    this.#veth = `krv${randomBytes(5).toString("hex")}`;
    this.hostAddress = addressAt(options.cidr, -3);
    process.on("message", (message: FromNetwork) => {
      if (message.kind === "request") void this.#answer(message);
    });
  }

  static async open(options: NetworkOptions): Promise<Network> {
    // Beside this file, bundled or not.
    const script = join(import.meta.dirname, `network-process${extname(import.meta.filename)}`);
    const child = spawn("unshare", ["--net", process.execPath, script], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    const network = new Network(options, child);
    try {
      await Promise.race([once(child, "message"), failure(child)]);
      await network.#setUp();
      const ready = once(child, "message");
      network.#send({ kind: "serve", addresses: options.metadataAddresses });
      await Promise.race([ready, failure(child)]);
      return network;
    } catch (e) {
      await network.close();
      throw e;
    }
  }

  /** What goes before a command line so that the command runs in the network. */
  get prefix(): readonly string[] {
    return ["nsenter", `--net=/proc/${this.#process.pid}/ns/net`];
  }

  /** Makes a tap device and has its card answered by DHCP. */
  async addTap(tap: string, nic: { mac: string; address: string; hopLimit?: number | undefined }): Promise<void> {
    const { mtu } = this.#options;
    const subnet = this.#subnetOf(nic.address);
    await this.#ip(
      [
        `tuntap add dev ${tap} mode tap`,
        `link set dev ${tap} mtu ${mtu} master br0 up`,
        // What the metadata service sends goes by this route; what is forwarded keeps its own TTL.
        `route replace ${nic.address}/32 dev br0${nic.hopLimit === undefined ? "" : ` hoplimit ${nic.hopLimit}`}`,
      ].join("\n"),
    );
    const { length } = parseCidr(subnet.cidr);
    const lease = { mac: nic.mac, address: nic.address, prefixLength: length, router: addressAt(subnet.cidr, 1), mtu };
    this.#leases.set(tap, lease);
    this.#send({ kind: "leases", leases: [...this.#leases.values()] });
  }

  async removeTap(tap: string): Promise<void> {
    const lease = this.#leases.get(tap);
    this.#leases.delete(tap);
    this.#send({ kind: "leases", leases: [...this.#leases.values()] });
    // A killed machine's device is held until the last of its threads has gone.
    await this.#ip(`link delete ${tap}`);
    if (lease !== undefined) await this.#ip(`route delete ${lease.address}/32 dev br0`);
  }

  async taps(): Promise<string[]> {
    const [program = "", ...args] = [...this.prefix, "ip", "-json", "link", "show", "master", "br0"];
    const { stdout } = await exec(program, args, background());
    return (JSON.parse(stdout || "[]") as { ifname: string }[]).map((l) => l.ifname);
  }

  async close(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const gone = once(this.#process, "exit");
      this.#process.kill("SIGKILL");
      await gone;
    }
    // Goes with the namespace, a moment later; by then another test may want the same routes.
    await exec("ip", ["link", "delete", this.#veth], background()).catch(() => undefined);
  }

  async #setUp(): Promise<void> {
    const { cidr, subnets, mtu, metadataAddresses } = this.#options;
    const router = addressAt(cidr, -2);
    await exec("ip", ["-batch", "-"], background(), {
      input: [
        `link add ${this.#veth} mtu ${mtu} type veth peer name host0 netns ${this.#process.pid}`,
        `address add ${this.hostAddress}/30 dev ${this.#veth}`,
        `link set dev ${this.#veth} up`,
        `route add ${cidr} via ${router} dev ${this.#veth} onlink`,
        "",
      ].join("\n"),
    });
    await this.#ip(
      [
        "link set dev lo up",
        `link add br0 mtu ${mtu} type bridge stp_state 0 forward_delay 0`,
        ...subnets.map((s) => `address add ${addressAt(s.cidr, 1)}/${parseCidr(s.cidr).length} dev br0`),
        ...metadataAddresses.map((a) => `address add ${a}/32 dev br0`),
        "link set dev br0 up",
        // DHCP's answers go to everybody.
        "route add 255.255.255.255/32 dev br0",
        `address add ${router}/30 dev host0`,
        `link set dev host0 mtu ${mtu} up`,
      ].join("\n"),
    );
    const [program = "", ...args] = [...this.prefix, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"];
    await exec(program, args, background());
  }

  async #ip(batch: string): Promise<void> {
    const [program = "", ...args] = [...this.prefix, "ip", "-batch", "-"];
    await exec(program, args, background(), { input: `${batch}\n` });
  }

  #subnetOf(address: string): SubnetSpec {
    const found = this.#options.subnets.find(({ cidr }) => {
      const { first, length } = parseCidr(cidr);
      const block = new BlockList();
      block.addSubnet(first, length);
      return block.check(address);
    });
    if (found === undefined) throw new Error(`no subnet has the address ${address}`);
    return found;
  }

  async #answer(message: FromNetwork & { readonly kind: "request" }): Promise<void> {
    const { kind: _, id, body, ...request } = message;
    let reply: Awaited<ReturnType<MetadataHandler>>;
    try {
      const machineId = this.#options.machineAt(request.source);
      reply = await this.#options.metadata({ ...request, machineId, body: Buffer.from(body, "base64") });
    } catch (e) {
      // The machine sees what a broken service gives; whoever reads the test's output sees why.
      console.error("metadata handler:", e);
      reply = { status: 500 };
    }
    this.#send({
      kind: "reply",
      id,
      reply: reply && {
        status: reply.status,
        headers: reply.headers ?? {},
        body: Buffer.from(reply.body ?? "").toString("base64"),
      },
    });
  }

  #send(message: ToNetwork): void {
    // Disconnected: the network is being closed, and so is whoever waits for this.
    if (this.#process.connected) this.#process.send(message);
  }
}

async function failure(child: ChildProcess): Promise<never> {
  const [code] = (await once(child, "exit")) as [number | null];
  throw new Error(`the process of the cloud's network ended with ${code ?? "a signal"}: it needs root and unshare`);
}

import { join } from "node:path";
import { PassThrough } from "node:stream";
import { NetworkNamespaces } from "../../support/network-namespaces.ts";
import { until } from "../harness/processes.ts";
import { type Running, start } from "../harness/run-command.ts";

/** Addresses of one worker: its own, its pods', and how the rest of the network reaches it. */
export interface Worker {
  readonly name: string;
  readonly netns: string;
  readonly address: string;
  readonly address6: string;
  readonly podCidr: string;
  readonly podCidr6: string;
  /** Of the interfaces that its CNI makes. */
  readonly podMtu: number;
}

export interface Question {
  readonly from: string;
  readonly name: string;
  readonly type?: "A" | "AAAA";
}

/** What is outside of the cluster. 203.0.113.0/24 and 2001:db8::/32 are kept for documents. */
export const OUTSIDE = { address: "203.0.113.53", address6: "2001:db8:53::53", port: 8088, name: "www.example.test" };
/** Given to a name of a Service by the name server. */
export const CLUSTER_NAME = "web.apps.svc.cluster.test";
const BRIDGE = "cni0";

/**
 * Two workers as network namespaces, a router between them that knows their pods' networks, and a server behind it
 * that does not: what comes back from there needs the workers' address translation.
 *
 *   worker a ── fabric ── worker b
 *                 └────── outside
 */
export class Fabric implements AsyncDisposable {
  readonly workers: readonly [Worker, Worker];
  readonly #spaces: NetworkNamespaces;
  readonly #services: { readonly worker: string; readonly rule: readonly string[] }[] = [];
  #server: Running | undefined;

  private constructor(spaces: NetworkNamespaces) {
    this.#spaces = spaces;
    this.workers = [worker(spaces, "a", 1, 9050), worker(spaces, "b", 2, 1500)];
  }

  /** @param serviceAddress what CLUSTER_NAME stands for */
  static async make(serviceAddress: string): Promise<Fabric> {
    const spaces = new NetworkNamespaces();
    const fabric = new Fabric(spaces);
    try {
      for (const name of ["fabric", "outside", "a", "b"]) await spaces.add(name);
      await spaces.join("fabric", "out", "outside", "eth0");
      await fabric.#address("fabric", "out", "203.0.113.1/24", "2001:db8:53::1/64");
      await fabric.#address("outside", "eth0", `${OUTSIDE.address}/24`, `${OUTSIDE.address6}/64`);
      // Workers only: it has never heard of pods.
      await spaces.ip("outside", "route add 10.77.0.0/16 via 203.0.113.1");
      await spaces.ip("outside", "-6 route add fd77::/16 via 2001:db8:53::1");
      for (const [i, to] of fabric.workers.entries()) await fabric.#connect(to, i + 1);
      for (const name of ["fabric", "a", "b"])
        await fabric.#sysctl(name, ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
      for (const at of fabric.workers) {
        await fabric.#bridgeRules(at);
        await fabric.#translate(at.name);
      }
      await fabric.#serve(serviceAddress);
    } catch (e) {
      await fabric[Symbol.asyncDispose]();
      throw e;
    }
    return fabric;
  }

  /** The CNI's configuration on a worker: a bridge, both families, the host as router. */
  static cni({ podCidr, podCidr6, podMtu }: Worker, folder: string): object {
    const ipam = {
      type: "host-local",
      dataDir: join(folder, "ipam"),
      ranges: [[{ subnet: podCidr }], [{ subnet: podCidr6 }]],
      routes: [{ dst: "0.0.0.0/0" }, { dst: "::/0" }],
    };
    const bridge = { type: "bridge", bridge: BRIDGE, isGateway: true, hairpinMode: true, mtu: podMtu, ipam };
    return { cniVersion: "0.4.0", name: "kata-remote-test", plugins: [bridge] };
  }

  /** A program on a worker, which must succeed. */
  on(at: Worker, command: readonly string[], timeoutMs = 120_000): Promise<string> {
    return this.#spaces.run(at.name, command[0] ?? "", command.slice(1), { timeoutMs });
  }

  /** As kube-proxy does for a Service with one endpoint: who sends to its address comes to the endpoint's. */
  async service(at: Worker, from: { readonly address: string; readonly port: number }, to: string): Promise<void> {
    const match = ["-d", `${from.address}/32`, "-p", "tcp", "--dport", String(from.port)];
    // A pod that reaches itself by its Service must see another sender.
    const [pod = ""] = to.split(":");
    const rules = [
      ...["PREROUTING", "OUTPUT"].map((chain) => [chain, ...match, "-j", "DNAT", "--to-destination", to]),
      ["POSTROUTING", "-s", pod, "-d", pod, "-j", "MASQUERADE"],
    ];
    for (const rule of rules) {
      await this.#nat(at.name, "-A", rule);
      this.#services.push({ worker: at.name, rule });
    }
  }

  /** Whether what pods of one bridge send each other passes the Services' rules, as on most Kubernetes nodes. */
  async #bridgeRules(at: Worker): Promise<void> {
    const families = ["iptables", "ip6tables"].map((name) => `net.bridge.bridge-nf-call-${name}=1`);
    await this.#sysctl(at.name, families);
  }

  async endServices(): Promise<void> {
    for (const { worker, rule } of this.#services.splice(0)) await this.#nat(worker, "-D", rule);
  }

  /** What was asked of the name server. */
  questions(): readonly Question[] {
    const lines = (this.#server?.output() ?? "").split("\n").filter((line) => line.startsWith("{"));
    return lines.map((line) => JSON.parse(line) as Question);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server?.child.stdin?.end();
    await this.#server?.done;
    await this.#spaces[Symbol.asyncDispose]();
  }

  async #connect({ name, address, address6, podCidr, podCidr6 }: Worker, net: number): Promise<void> {
    const there = `to-${name}`;
    await this.#spaces.join(name, "eth0", "fabric", there);
    await this.#address(name, "eth0", `${address}/24`, `${address6}/64`);
    await this.#address("fabric", there, `10.77.${net}.1/24`, `fd77:${net}::1/64`);
    await this.#spaces.ip(name, `route add default via 10.77.${net}.1`);
    await this.#spaces.ip(name, `-6 route add default via fd77:${net}::1`);
    await this.#spaces.ip("fabric", `route add ${podCidr} via ${address}`);
    await this.#spaces.ip("fabric", `-6 route add ${podCidr6} via ${address6}`);
    // The CNI would make it with the first pod and leave it: what is there before and after shall be the same.
    await this.#spaces.ip(name, `link add ${BRIDGE} type bridge`);
    await this.#spaces.ip(name, `link set ${BRIDGE} addrgenmode none`);
    await this.#spaces.ip(name, `link set ${BRIDGE} up`);
    await this.#spaces.ip(name, `address add fe80::1/64 dev ${BRIDGE} nodad`);
    await this.#address(name, BRIDGE, podCidr.replace("0/", "1/"), podCidr6.replace("::/", "::1/"));
  }

  /** Pods' way out: whatever leaves the cluster comes from its worker. */
  async #translate(name: string): Promise<void> {
    for (const [command, pods] of [
      ["iptables", "10.244.0.0/16"],
      ["ip6tables", "fd44::/16"],
    ] as const) {
      const rule = ["-s", pods, "!", "-d", pods, "-j", "MASQUERADE"];
      await this.#spaces.run(name, command, ["-w", "5", "-t", "nat", "-A", "POSTROUTING", ...rule]);
    }
  }

  async #serve(serviceAddress: string): Promise<void> {
    const names = {
      [OUTSIDE.name]: { A: OUTSIDE.address, AAAA: OUTSIDE.address6 },
      [CLUSTER_NAME]: { A: serviceAddress },
    };
    const script = join(import.meta.dirname, "outside-server.ts");
    const args = [process.execPath, script, String(OUTSIDE.port), JSON.stringify(names)];
    const through = [`--net=${this.#spaces.path("outside")}`, "--", ...args];
    const server = start("nsenter", through, { input: new PassThrough(), timeoutMs: 3_600_000 });
    this.#server = server;
    await until(
      "the server outside",
      60_000,
      () => server.output().includes("ready"),
      () => server.output(),
    );
  }

  async #nat(name: string, action: "-A" | "-D", rule: readonly string[]): Promise<void> {
    await this.#spaces.run(name, "iptables", ["-w", "5", "-t", "nat", action, ...rule]);
  }

  async #address(name: string, device: string, v4: string, v6: string): Promise<void> {
    await this.#spaces.ip(name, `address add ${v4} dev ${device}`);
    await this.#spaces.ip(name, `address add ${v6} dev ${device} nodad`);
  }

  async #sysctl(name: string, settings: readonly string[]): Promise<void> {
    for (const setting of settings) await this.#spaces.run(name, "sysctl", ["-q", "-w", setting]);
  }
}

function worker(spaces: NetworkNamespaces, name: string, net: number, podMtu: number): Worker {
  return {
    ...{ name, netns: spaces.path(name), address: `10.77.${net}.2`, address6: `fd77:${net}::2` },
    ...{ podCidr: `10.244.${net}.0/24`, podCidr6: `fd44:${net}::/64`, podMtu },
  };
}

import { freePort, RedisServer } from "./redis-server.ts";

const SLOTS = 16_384;

/** A Redis Cluster of two primaries, each with half of the slots, on loopback. */
export class RedisCluster implements AsyncDisposable {
  readonly nodes: readonly string[];
  readonly #servers: readonly RedisServer[];

  private constructor(servers: readonly RedisServer[], nodes: readonly string[]) {
    this.#servers = servers;
    this.nodes = nodes;
  }

  static async start(): Promise<RedisCluster> {
    const servers: RedisServer[] = [];
    const ports: [number, number][] = [];
    for (let i = 0; i < 2; i++) {
      const [port, bus] = [await freePort(), await freePort()];
      ports.push([port, bus]);
      const own = ["--cluster-enabled", "yes", "--cluster-port", String(bus), "--cluster-announce-ip", "127.0.0.1"];
      servers.push(await RedisServer.start(["--bind", "127.0.0.1", ...own, "--port", String(port)]));
    }
    const cluster = new RedisCluster(
      servers,
      ports.map(([port]) => `127.0.0.1:${port}`),
    );
    const clients = servers.map((s) => s.client());
    try {
      for (const [i, client] of clients.entries()) {
        await client.cluster("ADDSLOTSRANGE", (i * SLOTS) / 2, ((i + 1) * SLOTS) / 2 - 1);
      }
      const [port = 0, bus = 0] = ports[1] ?? [];
      await clients[0]?.cluster("MEET", "127.0.0.1", port, bus);
      const ready = async () => {
        const infos = await Promise.all(clients.map((c) => c.cluster("INFO")));
        return infos.every((info) => /cluster_state:ok/.test(info) && /cluster_known_nodes:2/.test(info));
      };
      for (const deadline = Date.now() + 20_000; !(await ready()); await new Promise((r) => setTimeout(r, 50))) {
        if (Date.now() > deadline) throw new Error("the cluster does not form");
      }
    } finally {
      for (const client of clients) client.disconnect();
    }
    return cluster;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#servers.map((s) => s[Symbol.asyncDispose]()));
  }
}

import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { until } from "../e2e/harness/processes.ts";
import { freePort, RedisServer } from "../support/redis-server.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const DATA = "appendonlydir";
const SNAPSHOT = "snapshot";

/** A Redis behind one address that stays the same, as a service's, whichever server answers at it. */
export class RedisPlace implements AsyncDisposable {
  #server: RedisServer;
  #port: number;
  readonly #old: RedisServer[] = [];
  #proxy: TcpProxy | undefined;

  private constructor(server: RedisServer, port: number) {
    this.#server = server;
    this.#port = port;
  }

  static async start(): Promise<RedisPlace> {
    const port = await freePort();
    const place = new RedisPlace(await RedisServer.start(["--port", String(port)]), port);
    place.#proxy = await TcpProxy.open(() => place.#port);
    return place;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#proxy?.port}`;
  }

  get server(): RedisServer {
    return this.#server;
  }

  /** Keeps what it has now for `restoreSnapshot`. */
  async takeSnapshot(): Promise<void> {
    await this.#server.kill(); // its files are whole then
    await rm(join(this.#server.dir, SNAPSHOT), { recursive: true, force: true });
    await cp(join(this.#server.dir, DATA), join(this.#server.dir, SNAPSHOT), { recursive: true });
    await this.#server.restart();
  }

  async restoreSnapshot(): Promise<void> {
    await this.#wipe();
    await cp(join(this.#server.dir, SNAPSHOT), join(this.#server.dir, DATA), { recursive: true });
    await this.#server.restart();
  }

  async restartEmpty(): Promise<void> {
    await this.#wipe();
    await this.#server.restart();
  }

  /** Kills the server and has a replica that was in step take its place. */
  async failOver(): Promise<void> {
    const port = await freePort();
    const replica = await RedisServer.start(["--port", String(port), "--replicaof", "127.0.0.1", String(this.#port)]);
    const client = replica.client();
    await until("the replica to be in step", 20_000, async () =>
      (await client.info("replication")).includes("master_link_status:up"),
    );
    await this.#server.kill();
    await client.replicaof("NO", "ONE");
    client.disconnect();
    this.#old.push(this.#server);
    this.#server = replica;
    this.#port = port;
    this.#proxy?.cut();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#proxy?.close();
    for (const server of [this.#server, ...this.#old]) await server[Symbol.asyncDispose]();
  }

  async #wipe(): Promise<void> {
    await this.#server.kill();
    await rm(join(this.#server.dir, DATA), { recursive: true });
  }
}

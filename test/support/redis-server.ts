import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";

const PROGRAM = "redis-server";
const START_MS = 20_000;

/** Why tests with Redis cannot run here, in a form for node:test's `skip`; false when they can. */
export function withoutRedis(): string | false {
  if (spawnSync(PROGRAM, ["--version"]).status === 0) return false;
  const reason = `NOT TESTED WITH REDIS: ${PROGRAM} is not installed (apt-get install redis-server)`;
  process.stderr.write(`${reason}\n`);
  return reason;
}

/**
 * A real redis-server on a unix socket in a directory of its own, that syncs every write. It can be killed, paused and
 * started again on its data.
 */
export class RedisServer implements AsyncDisposable {
  readonly dir: string;
  readonly #options: readonly string[];
  #child: ChildProcess | undefined;

  private constructor(dir: string, options: readonly string[]) {
    this.dir = dir;
    this.#options = options;
  }

  /** @param options more of redis.conf, as arguments: "--maxmemory-policy", "allkeys-lru" */
  static async start(options: readonly string[] = []): Promise<RedisServer> {
    const server = new RedisServer(await mkdtemp(join(tmpdir(), "redis-")), options);
    try {
      await server.restart();
    } catch (e) {
      await server[Symbol.asyncDispose]();
      throw e;
    }
    return server;
  }

  get socketPath(): string {
    return join(this.dir, "redis.sock");
  }

  get url(): string {
    return `unix://${this.socketPath}`;
  }

  /** A client for looking at it and breaking it; the caller ends it with disconnect(). */
  client(): Redis {
    return new Redis({ path: this.socketPath });
  }

  /** Starts it on the data that is there. */
  async restart(): Promise<void> {
    // The unix socket is always there; TCP only when the options say so.
    const always = ["--dir", this.dir, "--unixsocket", this.socketPath, "--port", "0", "--save", ""];
    const durable = ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"];
    const child = spawn(PROGRAM, [...always, ...durable, ...this.#options], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    let said = "";
    const ready = new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${PROGRAM} is not ready: ${said}`)), START_MS);
      const onData = (data: Buffer): void => {
        said += data.toString();
        if (/ready to accept connections/i.test(said)) {
          clearTimeout(late);
          resolve();
        }
      };
      child.stdout.on("data", onData);
      child.stderr.on("data", onData);
      child.on("exit", () => {
        clearTimeout(late);
        reject(new Error(`${PROGRAM} ended: ${said}`));
      });
    });
    await ready;
  }

  /** As a power cut. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGCONT");
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }

  /** It keeps its connections and answers nothing. */
  pause(): void {
    this.#child?.kill("SIGSTOP");
  }

  resume(): void {
    this.#child?.kill("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await rm(this.dir, { recursive: true, force: true });
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

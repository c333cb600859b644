import { readFile } from "node:fs/promises";
import type { ConnectionOptions } from "node:tls";
import { Cluster, Redis, type RedisOptions } from "ioredis";
import { Fault } from "../../../base/fault.ts";
import type { StoreConfig } from "../store-config.ts";

export type RedisClient = Redis | Cluster;

/**
 * How long a client's commands are tried. `bounded`: a command fails when it is not answered in time, and is never sent
 * twice. `patient`: it waits for Redis to come back, as BullMQ's workers and blocking reads want it.
 */
export type Patience = "bounded" | "patient";

/** Replies in the shapes that BullMQ and this store read, whatever protocol the server speaks. */
type Options = RedisOptions & { readonly replyMapping: "legacy" };

interface Secrets {
  readonly password?: string;
  readonly sentinelPassword?: string;
  readonly tls?: ConnectionOptions;
}

const MAX_RECONNECT_MS = 1000;
/** Longest that BullMQ blocks (10 s) and a bit: a socket that is silent for longer under a command is dead, ms. */
const SILENCE_MS = 15_000;

/** Where Redis is, and the clients for it. Passwords never leave it. */
export class RedisTarget {
  /** For messages and logs; no password in it. */
  readonly address: string;
  readonly #config: StoreConfig;
  readonly #secrets: Secrets;

  private constructor(config: StoreConfig, secrets: Secrets) {
    this.#config = config;
    this.#secrets = secrets;
    this.address = addressOf(config);
  }

  /** Reads the files that the configuration names. @throws Fault invalid_argument naming key and file */
  static async read(config: StoreConfig): Promise<RedisTarget> {
    const { passwordFile, sentinels, tls } = config;
    const password = await read("store.passwordFile", passwordFile);
    const sentinelPassword = await read("store.sentinels.passwordFile", sentinels?.passwordFile);
    const ca = await read("store.tls.caFile", tls?.caFile);
    const cert = await read("store.tls.certFile", tls?.certFile);
    const key = await read("store.tls.keyFile", tls?.keyFile);
    const wantsTls = tls !== undefined || config.url?.startsWith("rediss:") === true;
    return new RedisTarget(config, {
      ...(password === undefined ? {} : { password: password.replace(/\r?\n$/, "") }),
      ...(sentinelPassword === undefined ? {} : { sentinelPassword: sentinelPassword.replace(/\r?\n$/, "") }),
      ...(wantsTls ? { tls: withoutUndefined({ ca, cert, key, servername: tls?.serverName }) } : {}),
    });
  }

  /** A client that connects when it is first used, and again and again when it loses its connection. */
  client(patience: Patience): RedisClient {
    const client = this.#newClient(patience);
    client.on("error", (e: Error) => lastErrors.set(client, e));
    client.on("ready", () => lastErrors.delete(client));
    return client;
  }

  #newClient(patience: Patience): RedisClient {
    const { cluster, sentinels, url, db } = this.#config;
    const common = this.#common(patience);
    if (cluster !== undefined) {
      return new Cluster(cluster.nodes.map(hostPort), {
        lazyConnect: true,
        redisOptions: common,
        clusterRetryStrategy: reconnectMs,
        slotsRefreshTimeout: this.#config.timeoutMs,
        // The default, 2 s, would hold commands up for longer than a failover takes.
        retryDelayOnClusterDown: 200,
      });
    }
    const single: Options = { ...common, lazyConnect: true, retryStrategy: reconnectMs };
    if (sentinels !== undefined) {
      const { tls, sentinelPassword } = this.#secrets;
      const own: Options = {
        ...single,
        name: sentinels.name,
        sentinels: sentinels.nodes.map(hostPort),
        sentinelRetryStrategy: reconnectMs,
        failoverDetector: true,
        ...withoutUndefined({ sentinelUsername: sentinels.username, sentinelPassword, db }),
        ...(sentinels.tls ? { enableTLSForSentinelMode: true, sentinelTLS: tls ?? {} } : {}),
      };
      return new Redis(own);
    }
    return new Redis({ ...fromUrl(url ?? ""), ...withoutUndefined({ db }), ...single });
  }

  #common(patience: Patience): Options {
    const { timeoutMs, username } = this.#config;
    const { password, tls } = this.#secrets;
    const fromText = this.#config.url === undefined ? {} : credentials(this.#config.url);
    return {
      ...fromText,
      ...withoutUndefined({ username, password, tls }),
      replyMapping: "legacy",
      connectTimeout: timeoutMs,
      connectionName: "kata-remote-adaptor",
      // Fails over: a primary that became a replica refuses writes until the client looks for the new one.
      reconnectOnError: (e) => e.message.startsWith("READONLY"),
      ...(patience === "patient"
        ? { maxRetriesPerRequest: null, socketTimeout: SILENCE_MS }
        : {
            commandTimeout: timeoutMs,
            socketTimeout: timeoutMs,
            maxRetriesPerRequest: 20,
            // Whether a command that was under way was carried out is unknown: its caller looks and decides.
            autoResendUnfulfilledCommands: false,
          }),
    };
  }
}

const lastErrors = new WeakMap<RedisClient, Error>();

/** Why a command that was not answered in time was not: what the connection failed with last, if it did. */
export function reasonOf(client: RedisClient, error: unknown): unknown {
  const timedOut = error instanceof Error && /timed out|deadline|Connection is closed/i.test(error.message);
  return timedOut ? (lastErrors.get(client) ?? error) : error;
}

function reconnectMs(times: number): number {
  return Math.min(MAX_RECONNECT_MS, 50 * 2 ** Math.min(times, 10));
}

function addressOf({ url, sentinels, cluster }: StoreConfig): string {
  if (sentinels !== undefined) return `redis ${sentinels.name} of sentinels ${sentinels.nodes.join(", ")}`;
  if (cluster !== undefined) return `redis cluster ${cluster.nodes.join(", ")}`;
  const parsed = new URL(url ?? "redis://localhost");
  return `${parsed.protocol}//${parsed.host}${parsed.pathname}`;
}

function fromUrl(url: string): RedisOptions {
  const { protocol, hostname, port, pathname } = new URL(url);
  if (protocol === "unix:") return { path: decodeURIComponent(pathname) };
  const db = pathname.slice(1);
  return {
    host: hostname.replace(/^\[|\]$/g, ""),
    port: port === "" ? 6379 : Number(port),
    ...(/^\d+$/.test(db) ? { db: Number(db) } : {}),
  };
}

function credentials(url: string): RedisOptions {
  const { username, password } = new URL(url);
  return {
    ...(username === "" ? {} : { username: decodeURIComponent(username) }),
    ...(password === "" ? {} : { password: decodeURIComponent(password) }),
  };
}

function hostPort(text: string): { host: string; port: number } {
  const at = text.lastIndexOf(":");
  return { host: text.slice(0, at).replace(/^\[|\]$/g, ""), port: Number(text.slice(at + 1)) };
}

async function read(key: string, path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new Fault("invalid_argument", `${key}: ${path} cannot be read`, {}, { cause });
  }
}

function withoutUndefined<T extends object>(object: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, v]) => v !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

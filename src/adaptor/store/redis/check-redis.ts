import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { race } from "../../../base/retry.ts";
import { type RedisClient, type RedisTarget, reasonOf } from "./redis-target.ts";

/** As a provider's Finding: a line of `kata-remote check`. */
export interface RedisFinding {
  readonly subject: string;
  readonly state: "ok" | "warning" | "error";
  readonly detail: string;
  readonly remedy?: string;
}

/** BullMQ's own minimum; older ones also write scripts to the append-only file another way. */
const OLDEST = [6, 2] as const;

/**
 * Whether this Redis keeps what it acknowledges: append-only file synced at every write, nothing evicted. Reads only.
 * A cluster is asked at one of its nodes.
 */
export async function checkRedis(target: RedisTarget, call: Call): Promise<readonly RedisFinding[]> {
  const client = target.client("bounded");
  try {
    const info = parseInfo(await race(client.info(), call));
    return [version(info), persistence(info, await fsyncOf(client)), eviction(info), replication(info)];
  } catch (e) {
    const detail = `${target.address}: ${Fault.from(reasonOf(client, e)).fullMessage}`;
    const remedy = "start redis, or correct [store] in the adaptor's configuration";
    return [{ subject: "redis", state: "error", detail, remedy }];
  } finally {
    client.disconnect();
  }
}

function version(info: ReadonlyMap<string, string>): RedisFinding {
  const text = info.get("valkey_version") ?? info.get("redis_version") ?? "unknown";
  const [major = 0, minor = 0] = (info.get("redis_version") ?? "").split(".").map(Number);
  const old = major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]);
  const subject = "redis version";
  return old
    ? { subject, state: "error", detail: text, remedy: `${OLDEST.join(".")} or newer is needed` }
    : { subject, state: "ok", detail: text };
}

function persistence(info: ReadonlyMap<string, string>, fsync: string | undefined): RedisFinding {
  const subject = "redis persistence";
  if (info.get("aof_enabled") !== "1") {
    return {
      subject,
      state: "error",
      detail: "the append-only file is off: a restart loses sandboxes, and their VMs stay",
      remedy: "appendonly yes and appendfsync always in redis.conf, or CONFIG SET both",
    };
  }
  if (fsync === undefined) {
    return {
      subject,
      state: "warning",
      detail: "appendonly yes; whether appendfsync is always cannot be read (CONFIG GET is refused)",
      remedy: "see to it that appendfsync is always, or allow +config|get to the user",
    };
  }
  if (fsync !== "always") {
    return {
      subject,
      state: "error",
      detail: `appendfsync is ${fsync}: a crash loses what was acknowledged last, VMs made then stay`,
      remedy: "appendfsync always in redis.conf, or CONFIG SET appendfsync always",
    };
  }
  return { subject, state: "ok", detail: "appendonly yes, appendfsync always" };
}

function eviction(info: ReadonlyMap<string, string>): RedisFinding {
  const policy = info.get("maxmemory_policy") ?? "unknown";
  const subject = "redis eviction";
  if (policy === "noeviction") return { subject, state: "ok", detail: policy };
  const limited = (info.get("maxmemory") ?? "0") !== "0";
  return {
    subject,
    state: "error",
    detail: `maxmemory-policy is ${policy}: redis may drop records of running sandboxes${limited ? "" : " once maxmemory is set"}`,
    remedy: "maxmemory-policy noeviction in redis.conf, or CONFIG SET maxmemory-policy noeviction",
  };
}

function replication(info: ReadonlyMap<string, string>): RedisFinding {
  const subject = "redis role";
  const role = info.get("role") ?? "unknown";
  if (role === "master") {
    const replicas = Number(info.get("connected_slaves") ?? 0);
    return { subject, state: "ok", detail: `primary with ${replicas} replicas` };
  }
  return {
    subject,
    state: "error",
    detail: `it is a ${role}: it takes no writes`,
    remedy: "name the primary, or the sentinels",
  };
}

async function fsyncOf(client: RedisClient): Promise<string | undefined> {
  try {
    const answer = (await client.config("GET", "appendfsync")) as string[];
    return answer[1];
  } catch {
    return undefined; // managed services and ACLs refuse CONFIG: said as a warning
  }
}

function parseInfo(text: string): ReadonlyMap<string, string> {
  return new Map(
    text
      .split(/\r?\n/)
      .filter((line) => line.includes(":"))
      .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)]),
  );
}

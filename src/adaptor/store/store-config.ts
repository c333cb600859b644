import { type Static, Type } from "typebox";
import { Fault } from "../../base/fault.ts";

const strict = { additionalProperties: false } as const;
const HostPort = Type.String({ pattern: "^.+:[0-9]{1,5}$", description: "host:port" });

/** Where the adaptor keeps its truth. Everything but `kind` is for Redis. */
export const StoreConfig = Type.Object(
  {
    kind: Type.Union([Type.Literal("embedded"), Type.Literal("redis")], {
      default: "embedded",
      description: "embedded: a file in stateDir, one adaptor. redis: shared by any number of adaptors",
    }),
    url: Type.Optional(
      Type.String({
        pattern: "^(redis|rediss|unix)://",
        description: "redis://host:port/db, rediss:// for TLS, unix:///path. Put the password into passwordFile",
      }),
    ),
    sentinels: Type.Optional(
      Type.Object(
        {
          name: Type.String({ minLength: 1, description: "Name of the primary's group" }),
          nodes: Type.Array(HostPort, { minItems: 1 }),
          username: Type.Optional(Type.String()),
          passwordFile: Type.Optional(Type.String()),
          tls: Type.Boolean({ default: false, description: "Speak TLS with the sentinels too, as `tls` says" }),
        },
        strict,
      ),
    ),
    cluster: Type.Optional(Type.Object({ nodes: Type.Array(HostPort, { minItems: 1 }) }, strict)),
    username: Type.Optional(Type.String({ minLength: 1, description: "ACL user" })),
    passwordFile: Type.Optional(Type.String({ minLength: 1, description: "Its content, without a final newline" })),
    db: Type.Optional(Type.Integer({ minimum: 0, description: "Not with a cluster" })),
    tls: Type.Optional(
      Type.Object(
        {
          caFile: Type.Optional(Type.String({ description: "PEM; without it the system's CAs are trusted" })),
          certFile: Type.Optional(Type.String()),
          keyFile: Type.Optional(Type.String()),
          serverName: Type.Optional(
            Type.String({ description: "In the server's certificate, if not the host's name" }),
          ),
        },
        strict,
      ),
    ),
    prefix: Type.Optional(
      Type.String({ pattern: "^[A-Za-z0-9_.-]{1,63}$", description: "Of all keys; default is `cluster` above" }),
    ),
    timeoutMs: Type.Integer({ minimum: 100, default: 5_000, description: "Of one command, ms; then calls fail" }),
    leaseMs: Type.Integer({
      minimum: 300,
      default: 15_000,
      description: "Work of an adaptor that was not heard of for this long is taken over, ms",
    }),
  },
  { ...strict, default: {} },
);
export type StoreConfig = Static<typeof StoreConfig>;

const REDIS_KEYS = ["url", "sentinels", "cluster", "username", "passwordFile", "db", "tls", "prefix"] as const;
const PLACES = ["url", "sentinels", "cluster"] as const;

/** What a schema cannot say. @throws Fault invalid_argument naming the keys and the remedy */
export function checkStoreConfig(config: StoreConfig): void {
  const refuse = (message: string): never => {
    throw new Fault("invalid_argument", message);
  };
  if (config.kind === "embedded") {
    const strange = REDIS_KEYS.find((key) => config[key] !== undefined);
    if (strange !== undefined) refuse(`store.${strange} is for Redis: set store.kind = "redis", or remove it`);
    return;
  }
  const places = PLACES.filter((key) => config[key] !== undefined);
  if (places.length !== 1) {
    const given = places.length === 0 ? "none is given" : `${places.join(" and ")} are given`;
    refuse(`store.kind = "redis" needs one of store.url (or REDIS_URL), store.sentinels and store.cluster: ${given}`);
  }
  if (config.cluster !== undefined && (config.db ?? 0) !== 0) refuse(`store.db is ${config.db}: a cluster has 0 only`);
  if ((config.tls?.certFile === undefined) !== (config.tls?.keyFile === undefined)) {
    refuse("store.tls.certFile and store.tls.keyFile need each other");
  }
  if (config.url?.startsWith("unix:") && config.tls !== undefined) refuse("store.tls: a unix socket has no TLS");
}

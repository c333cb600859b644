import { type Static, Type } from "typebox";
import { CapacityConfig } from "./capacity/index.ts";
import { StoreConfig } from "./store/index.ts";

const strict = { additionalProperties: false } as const;
const SECOND = 1_000;

const Port = Type.Integer({ minimum: 0, maximum: 65_535 });

/** Configuration of the adaptor. Every key has a default; what a provider needs is checked by its own schema. */
export const AdaptorConfig = Type.Object(
  {
    stateDir: Type.String({
      minLength: 1,
      default: "/var/lib/kata-remote/adaptor",
      description: "Store, CA and, for provider local, VMs. One adaptor per directory",
    }),
    store: StoreConfig,
    cluster: Type.String({
      pattern: "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
      default: "kata-remote",
      description: "Tag of this cluster's instances: unique per provider account",
    }),
    provider: Type.String({ default: "local", description: "Name of a folder in providers/" }),
    providers: Type.Record(Type.String(), Type.Unknown(), {
      default: {},
      description: "Configuration of each provider, by its name; only the chosen one's is read",
    }),
    grpc: Type.Object(
      {
        socketPath: Type.String({
          default: "/run/kata-remote/adaptor.sock",
          description: "For the node daemon of this machine (0600)",
        }),
        listen: Type.Optional(
          Type.Object(
            {
              host: Type.String(),
              port: Port,
              joinPort: Type.Optional(
                Type.Integer({
                  ...{ minimum: 1, maximum: 65_535 },
                  description:
                    "For nodes that have no certificate yet: they show a token of `kata-remote adaptor token`",
                }),
              ),
              serverNames: Type.Array(Type.String(), {
                minItems: 1,
                description: "DNS names and addresses that nodes dial",
              }),
            },
            strict,
          ),
        ),
      },
      { ...strict, default: {} },
    ),
    rest: Type.Object(
      {
        host: Type.String({ default: "127.0.0.1" }),
        port: Type.Integer({ minimum: 0, maximum: 65_535, default: 8170, description: "0 chooses a free one" }),
        socketPath: Type.Optional(Type.String({ description: "Listen here (0600) instead of host and port" })),
      },
      { ...strict, default: {} },
    ),
    vm: Type.Object(
      {
        vcpus: Type.Integer({
          minimum: 0,
          default: 0,
          description: "Of a pod that asks for none; 0 leaves it to the provider",
        }),
        memoryMiB: Type.Integer({ minimum: 64, default: 512, description: "What a pod without a limit may use, MiB" }),
        guestOverheadMiB: Type.Integer({
          minimum: 0,
          default: 192,
          description: "For the guest itself, on top of the pod's memory, MiB",
        }),
      },
      { ...strict, default: {} },
    ),
    capacity: CapacityConfig,
    limits: Type.Object(
      {
        sandboxes: Type.Integer({ minimum: 1, default: 1000, description: "Living at once; CreateVM fails beyond" }),
        sandboxesPerNode: Type.Optional(Type.Integer({ minimum: 1, description: "Living at once on one node" })),
        sandboxesPerNamespace: Type.Optional(
          Type.Integer({ minimum: 1, description: "Living at once in one Kubernetes namespace" }),
        ),
        concurrentStarts: Type.Integer({ minimum: 1, default: 16, description: "Where VMs are made one by one" }),
        concurrentStops: Type.Integer({ minimum: 1, default: 250 }),
        startAttempts: Type.Integer({
          minimum: 1,
          default: 5,
          description: "Of one start, when the provider's error may pass",
        }),
        startTimeoutMs: Type.Integer({
          minimum: SECOND,
          default: 600 * SECOND,
          description: "Of one attempt until an address is known, ms",
        }),
        stopTimeoutMs: Type.Integer({
          minimum: SECOND,
          default: 300 * SECOND,
          description: "Of one attempt; stops are repeated until they succeed, ms",
        }),
        consoleWaitMs: Type.Integer({
          minimum: 0,
          default: 3 * SECOND,
          description: "For a guest's fingerprint on its console, ms",
        }),
      },
      { ...strict, default: {} },
    ),
    reconcile: Type.Object(
      {
        intervalMs: Type.Integer({ minimum: 10, default: 10 * SECOND }),
        lostIntervalMs: Type.Integer({
          minimum: 10,
          default: 2 * SECOND,
          description: "Between looks for instances that ended by themselves, ms",
        }),
        lostGraceMs: Type.Integer({
          minimum: 0,
          default: 600 * SECOND,
          description: "A lost sandbox that its node does not stop is stopped after this, ms",
        }),
        orphanGraceMs: Type.Integer({
          minimum: 0,
          default: 30 * SECOND,
          description: "A younger instance without a record is left alone, ms",
        }),
        massLossMs: Type.Integer({
          minimum: 0,
          default: 60 * SECOND,
          description: "A listing that lacks most instances is believed only after this, ms",
        }),
        stuckDeleteMs: Type.Integer({
          minimum: 0,
          default: 300 * SECOND,
          description: "A deletion that takes longer is reported as stuck, ms",
        }),
        retentionMs: Type.Integer({
          minimum: 0,
          default: 3600 * SECOND,
          description: "How long records that are over are kept, ms",
        }),
      },
      { ...strict, default: {} },
    ),
    nodes: Type.Object(
      {
        rebootQuietMs: Type.Integer({
          minimum: 0,
          default: 30 * SECOND,
          description: "A node that was heard of within this time was not rebooted: it has a double, ms",
        }),
        silentMs: Type.Integer({
          minimum: 100,
          default: 120 * SECOND,
          description: "A node that was not heard of for this long is reported as silent, ms",
        }),
        goneMs: Type.Integer({
          minimum: 0,
          default: 0,
          description:
            "Sandboxes of a node that was not heard of for this long are stopped, ms. 0: never by themselves",
        }),
      },
      { ...strict, default: {} },
    ),
    kubernetes: Type.Object(
      {
        events: Type.Boolean({
          default: true,
          description: "In a cluster: what operators should hear of is posted as Kubernetes Events",
        }),
      },
      { ...strict, default: {} },
    ),
    logLevel: Type.Union(
      ["trace", "debug", "info", "warn", "error"].map((level) => Type.Literal(level)),
      { default: "info" },
    ),
  },
  strict,
);
export type AdaptorConfig = Static<typeof AdaptorConfig>;

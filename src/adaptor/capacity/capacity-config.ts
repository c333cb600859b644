import { type Static, Type } from "typebox";

const strict = { additionalProperties: false } as const;
const RateLimit = Type.Object(
  { burst: Type.Number({ minimum: 1 }), perSecond: Type.Number({ exclusiveMinimum: 0 }) },
  strict,
);

/** `[capacity]`: how the cloud account is used. */
export const CapacityConfig = Type.Object(
  {
    adaptors: Type.Integer({
      minimum: 1,
      default: 1,
      description: "How many adaptors use the account: each takes its part of every limit",
    }),
    families: Type.Record(
      Type.String(),
      Type.Object({ requests: Type.Optional(RateLimit), instances: Type.Optional(RateLimit) }, strict),
      { default: {}, description: "Request limits of the account, where they are not the published ones" },
    ),
    batchStarts: Type.Integer({
      minimum: 1,
      default: 1000,
      description: "Starts under way at once where VMs are made in batches: only what is begun can share a request",
    }),
    batchWindowMs: Type.Integer({
      minimum: 0,
      default: 25,
      description: "VMs of one class that are asked for within this time share a request, ms",
    }),
    batchLingerMs: Type.Integer({
      minimum: 0,
      default: 5_000,
      description: "When the account's limit is used up: VMs of this time share a request, ms",
    }),
    breaker: Type.Object(
      {
        podFailures: Type.Integer({
          minimum: 1,
          default: 3,
          description: "VMs in a row that a pod may burn before it has to wait",
        }),
        classFailures: Type.Integer({ minimum: 1, default: 20, description: "The same for all pods of one size" }),
        openMs: Type.Integer({ minimum: 1, default: 60_000, description: "First wait, ms; it doubles" }),
        maxOpenMs: Type.Integer({ minimum: 1, default: 900_000 }),
      },
      { ...strict, default: {} },
    ),
  },
  { ...strict, default: {} },
);
export type CapacityConfig = Static<typeof CapacityConfig>;

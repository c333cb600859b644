import { type TSchema, Type } from "typebox";

/** What REST answers with, as the OpenAPI document shows it. Further fields may come with any version. */
const text = (description: string): TSchema => Type.String({ description });
const time = Type.String({ description: "RFC 3339" });
const optional = (schema: TSchema): TSchema => Type.Optional(schema);
const list = (items: TSchema): TSchema => Type.Array(items);

export const Problem = Type.Object(
  { title: text("Code of the fault"), status: Type.Integer(), detail: Type.String(), retryable: Type.Boolean() },
  { title: "Problem", description: "RFC 9457" },
);

export const Status = Type.Object({ status: Type.String(), recovery: optional(text("Set while one is open")) });

const RecordedFault = Type.Object({ code: Type.String(), message: Type.String(), at: time });

export const Sandbox = Type.Object(
  {
    id: Type.String(),
    revision: Type.Integer(),
    phase: text("prepared, creating, booting, ready, lost, failed, stopping or gone"),
    nodeId: Type.String(),
    pod: Type.Object({ namespace: Type.String(), name: Type.String(), uid: Type.String() }),
    containerd: Type.Object({ namespace: Type.String(), id: Type.String() }),
    request: Type.Object({ vcpus: Type.Number(), memoryMiB: Type.Integer(), gpus: Type.Integer() }),
    intent: optional(Type.Object({ createOperation: Type.String(), name: Type.String(), created: time })),
    instance: optional(Type.Object({ id: Type.String(), addresses: list(Type.String()), port: Type.Integer() })),
    guestKey: optional(Type.Object({ fingerprint: Type.String(), verifiedBy: text("console or address") })),
    rebuiltAt: optional(time),
    stopReason: optional(Type.String()),
    lastFault: optional(RecordedFault),
    createdAt: time,
    phaseSince: time,
  },
  { title: "Sandbox" },
);

export const Operation = Type.Object(
  {
    id: Type.String(),
    kind: text("start-vm, stop-vm, collect-instance or create-batch"),
    subject: text("Id of a sandbox or an instance"),
    state: text("queued, running, done, failed or cancelled"),
    priority: Type.Integer(),
    attempt: Type.Integer(),
    wakeAt: Type.Number({ description: "ms since the epoch" }),
    submittedAt: time,
    finishedAt: optional(time),
    progress: optional(Type.String()),
    cancelReason: optional(Type.String()),
    fault: optional(RecordedFault),
  },
  { title: "Operation" },
);

export const Instance = Type.Object(
  {
    id: Type.String(),
    name: Type.String(),
    tags: Type.Object({ cluster: Type.String(), owner: Type.String(), createOperation: Type.String(), created: time }),
    state: text("pending, running, deleting or failed"),
    addresses: list(Type.String()),
    createdAt: time,
    reason: optional(Type.String()),
  },
  { title: "Instance" },
);

export const Node = Type.Object(
  {
    nodeId: Type.String(),
    bootId: Type.String(),
    session: Type.String(),
    sequence: Type.Integer(),
    reportedAt: time,
    epoch: text("The store's epoch in which it reported last"),
    live: Type.Integer({ description: "Sandboxes that it named" }),
    forgotten: optional(Type.Boolean()),
  },
  { title: "Node" },
);

export const Problems = Type.Object(
  {
    recovery: Type.Object({
      epoch: Type.String(),
      since: time,
      open: Type.Boolean({ description: "While it is, nothing is deleted that the store may only have forgotten" }),
      waitingFor: list(text("A node that has not reported")),
      kept: list(text("An instance that no record owns")),
      unassigned: list(text("One of these that names no node: kept until an operator confirms")),
      advice: optional(text("What is to be done")),
      ended: optional(Type.String()),
    }),
    silentNodes: list(Type.Object({ nodeId: Type.String(), reportedAt: time, live: Type.Integer() })),
    stuckDeletes: list(
      Type.Object({
        operation: Type.String(),
        sandbox: optional(Type.String()),
        instance: optional(Type.String()),
        pod: optional(Type.String()),
        node: optional(Type.String()),
        since: time,
        attempts: Type.Integer(),
        lastError: optional(Type.String()),
      }),
    ),
  },
  { title: "Problems" },
);

export const Event = Type.Object(
  {
    at: time,
    kind: Type.String(),
    message: Type.String(),
    sandbox: optional(Type.String()),
    instance: optional(Type.String()),
    node: optional(Type.String()),
    operation: optional(Type.String()),
  },
  { title: "Event" },
);

export const Loop = Type.Object(
  {
    name: Type.String(),
    intervalMs: Type.Number(),
    leads: Type.Boolean({ description: "Whether it runs on this adaptor" }),
    passes: Type.Integer(),
    repaired: Type.Integer(),
    last: optional(
      Type.Object({
        at: time,
        tookMs: Type.Number(),
        examined: Type.Integer(),
        repaired: Type.Integer(),
        failure: optional(Type.String()),
      }),
    ),
  },
  { title: "ReconcileLoop" },
);

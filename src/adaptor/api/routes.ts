import { type Static, type TObject, type TSchema, Type } from "typebox";
import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { type OperationId, parseInstanceId, parseSandboxId } from "../../base/ids.ts";
import type { Events, PodVmService, Problems, Recovery } from "../podvm/index.ts";
import type { LoopStatus } from "../reconcile/index.ts";
import * as types from "./document-types.ts";
import type { Metrics } from "./metrics.ts";

export interface RouteDeps {
  readonly service: PodVmService;
  readonly metrics: Metrics;
  readonly problems: Problems;
  readonly recovery: Recovery;
  readonly events: Events;
  readonly loops: () => readonly LoopStatus[];
  /** Throws while the adaptor is not ready for work. */
  readonly ready: () => void;
}

/** One route of the REST door: what fastify serves and what the OpenAPI document says come from the same place. */
export interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  /** With `:name` parameters. */
  readonly path: string;
  readonly summary: string;
  readonly params?: TObject;
  readonly query?: TObject;
  readonly body?: TObject;
  /** Absent: text. */
  readonly answer?: TSchema;
  readonly status?: number;
  /** Changes something: only on a unix socket, which only the adaptor's user opens. */
  readonly changes?: boolean;
  handle(deps: RouteDeps, input: RouteInput): Promise<unknown>;
}

export interface RouteInput {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
}

const REQUEST_TIMEOUT_MS = 30_000;
const DEFAULT_LIMIT = 200;
const DEFAULT_CONSOLE_BYTES = 65_536;
const Id = Type.Object({ id: Type.String({ maxLength: 128 }) });
const Limit = Type.Object({ limit: Type.Optional(Type.String({ pattern: "^[0-9]{1,4}$" })) });
const Bytes = Type.Object({ maxBytes: Type.Optional(Type.String({ pattern: "^[0-9]{1,7}$" })) });
const Epoch = Type.Object({ epoch: Type.String({ maxLength: 64, description: "Of the recovery that was looked at" }) });

const call = (): Call => withDeadline(REQUEST_TIMEOUT_MS);
const idOf = (input: RouteInput): string => (input.params as Static<typeof Id>).id;
const listOf = (name: string, items: TSchema): TObject => Type.Object({ [name]: Type.Array(items) });

export const ROUTES: readonly Route[] = [
  {
    ...{ method: "GET", path: "/healthz", summary: "The process lives", answer: types.Status },
    handle: async () => ({ status: "ok" }),
  },
  {
    ...{
      method: "GET",
      path: "/readyz",
      summary: "Ready for work; says whether a recovery is open",
      answer: types.Status,
    },
    async handle({ ready, recovery }) {
      ready();
      if (!(await recovery.isOpen())) return { status: "ok" };
      return { status: "ok", recovery: "open: nothing is deleted that is older, see /v1/problems" };
    },
  },
  {
    ...{ method: "GET", path: "/metrics", summary: "Prometheus metrics" },
    handle: ({ metrics }) => metrics.registry.metrics(),
  },
  {
    ...{ method: "GET", path: "/v1/sandboxes", summary: "All records of sandboxes" },
    answer: listOf("sandboxes", types.Sandbox),
    handle: async ({ service }) => ({ sandboxes: await service.sandboxes() }),
  },
  {
    ...{ method: "GET", path: "/v1/sandboxes/:id", summary: "One record", params: Id, answer: types.Sandbox },
    handle: async ({ service }, input) =>
      found(await service.sandbox(parseSandboxId(idOf(input))), "sandbox", idOf(input)),
  },
  {
    ...{ method: "GET", path: "/v1/operations", summary: "Operations, newest first", query: Limit },
    answer: listOf("operations", types.Operation),
    async handle({ service }, { query }) {
      const { limit = DEFAULT_LIMIT } = query as Static<typeof Limit>;
      return { operations: await service.operations(Number(limit)) };
    },
  },
  {
    ...{ method: "GET", path: "/v1/operations/:id", summary: "One operation", params: Id, answer: types.Operation },
    handle: async ({ service }, input) =>
      found(await service.operation(idOf(input) as OperationId), "operation", idOf(input)),
  },
  {
    ...{ method: "GET", path: "/v1/instances", summary: "What the cloud has of this cluster" },
    answer: listOf("instances", types.Instance),
    handle: async ({ service }) => ({ instances: await service.instances(call()) }),
  },
  {
    ...{ method: "GET", path: "/v1/instances/:id/console", summary: "Serial console", params: Id, query: Bytes },
    async handle({ service }, input) {
      const { maxBytes = DEFAULT_CONSOLE_BYTES } = input.query as Static<typeof Bytes>;
      return service.console(parseInstanceId(idOf(input)), Number(maxBytes), call());
    },
  },
  {
    ...{ method: "DELETE", path: "/v1/instances/:id", summary: "Removes an instance that no sandbox owns", params: Id },
    ...{ status: 202, changes: true, answer: Type.Object({ operation: Type.String() }) },
    handle: async ({ service }, input) => ({ operation: await service.collect(parseInstanceId(idOf(input)), call()) }),
  },
  {
    ...{
      method: "GET",
      path: "/v1/nodes",
      summary: "Nodes and their last report",
      answer: listOf("nodes", types.Node),
    },
    handle: async ({ service }) => ({ nodes: await service.nodes() }),
  },
  {
    ...{ method: "DELETE", path: "/v1/nodes/:id", summary: "A node that does not come back: stops its sandboxes" },
    ...{ params: Id, changes: true, answer: Type.Object({ stopping: Type.Array(Type.String()) }) },
    handle: async ({ service }, input) => ({
      stopping: await service.forgetNode(idOf(input), "an operator said that its node does not come back"),
    }),
  },
  {
    ...{ method: "GET", path: "/v1/problems", summary: "What needs attention", answer: types.Problems },
    handle: ({ problems }) => problems.look(),
  },
  {
    ...{ method: "POST", path: "/v1/recovery/confirm", summary: "Ends a recovery: what nobody claims may be deleted" },
    ...{ body: Epoch, changes: true, answer: types.Problems },
    async handle({ recovery, problems }, { body }) {
      await recovery.confirm((body as Static<typeof Epoch>).epoch);
      return problems.look();
    },
  },
  {
    ...{ method: "GET", path: "/v1/events", summary: "The last events of this adaptor" },
    answer: listOf("events", types.Event),
    handle: async ({ events }) => ({ events: events.list() }),
  },
  {
    ...{ method: "GET", path: "/v1/reconcile", summary: "What the reconcile loops did on this adaptor" },
    answer: listOf("loops", types.Loop),
    handle: async ({ loops }) => ({ loops: loops() }),
  },
];

function found<T>(thing: T | undefined, what: string, id: string): T {
  if (thing === undefined) throw new Fault("not_found", `${what} ${id} is unknown`);
  return thing;
}

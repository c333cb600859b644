import { chmod, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from "@fastify/type-provider-typebox";
import fastify, { type FastifyInstance } from "fastify";
import { Type } from "typebox";
import { type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import { type OperationId, parseInstanceId, parseSandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { PodVmService } from "../podvm/index.ts";
import { problemOf } from "./fault-mapping.ts";
import type { Metrics } from "./metrics.ts";

export type RestAddress = { readonly socketPath: string } | { readonly host: string; readonly port: number };

export interface RestDoorDeps {
  readonly service: PodVmService;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** Throws while the adaptor is not ready for work. */
  readonly ready: () => void;
}

const REQUEST_TIMEOUT_MS = 30_000;
const DEFAULT_LIMIT = 200;
const DEFAULT_CONSOLE_BYTES = 65_536;
const Id = Type.Object({ id: Type.String({ maxLength: 128 }) });
const Limit = Type.Object({ limit: Type.Optional(Type.String({ pattern: "^[0-9]{1,4}$" })) });
const Bytes = Type.Object({ maxBytes: Type.Optional(Type.String({ pattern: "^[0-9]{1,7}$" })) });

/** What operators and probes see, over HTTP. Reads only, except on a unix socket, which only the adaptor's user opens. */
export class RestDoor implements AsyncDisposable {
  readonly #app: FastifyInstance;
  /** Where it listens: the chosen port when the configuration says 0. */
  readonly address: string;

  private constructor(app: FastifyInstance, address: string) {
    this.#app = app;
    this.address = address;
  }

  static async open(where: RestAddress, deps: RestDoorDeps): Promise<RestDoor> {
    const app = createApp(deps, { mayDelete: "socketPath" in where });
    if (!("socketPath" in where)) return new RestDoor(app, await app.listen({ host: where.host, port: where.port }));
    await mkdirPrivate(dirname(where.socketPath));
    await rm(where.socketPath, { force: true }); // of a dead adaptor: the lock on the store says no other lives
    const umask = process.umask(0o077);
    try {
      const address = await app.listen({ path: where.socketPath });
      await chmod(where.socketPath, 0o600);
      return new RestDoor(app, address);
    } finally {
      process.umask(umask);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#app.close();
  }
}

/** The routes; exported for tests, which inject requests without a socket. */
export function createApp(deps: RestDoorDeps, options: { readonly mayDelete: boolean }): FastifyInstance {
  const app = fastify({ forceCloseConnections: true }).withTypeProvider<TypeBoxTypeProvider>();
  app.setValidatorCompiler(TypeBoxValidatorCompiler);
  app.setErrorHandler((error, request, reply) => {
    const invalid = error instanceof Error && "validation" in error;
    const fault = invalid ? new Fault("invalid_argument", error.message) : Fault.from(error);
    if (fault.code === "internal") deps.log.error({ ...fault.context, url: request.url, err: fault }, "request failed");
    const { status, body } = problemOf(fault);
    return reply.code(status).type("application/problem+json").send(body);
  });
  app.setNotFoundHandler((request) => {
    throw new Fault("not_found", `${request.method} ${request.url} is not served here`);
  });
  const { service } = deps;
  const call = (): Call => withDeadline(REQUEST_TIMEOUT_MS);

  app.get("/healthz", async () => ({ status: "ok" }));
  app.get("/readyz", async () => {
    deps.ready();
    return { status: "ok" };
  });
  app.get("/metrics", async (_, reply) => {
    reply.type(deps.metrics.registry.contentType);
    return deps.metrics.registry.metrics();
  });

  app.get("/v1/sandboxes", async () => ({ sandboxes: await service.sandboxes() }));
  app.get("/v1/sandboxes/:id", { schema: { params: Id } }, async ({ params }) => {
    return found(await service.sandbox(parseSandboxId(params.id)), "sandbox", params.id);
  });
  app.get("/v1/operations", { schema: { querystring: Limit } }, async ({ query }) => ({
    operations: await service.operations(Number(query.limit ?? DEFAULT_LIMIT)),
  }));
  app.get("/v1/operations/:id", { schema: { params: Id } }, async ({ params }) => {
    return found(await service.operation(params.id as OperationId), "operation", params.id);
  });
  app.get("/v1/instances", async () => ({ instances: await service.instances(call()) }));
  app.get(
    "/v1/instances/:id/console",
    { schema: { params: Id, querystring: Bytes } },
    async ({ params, query }, reply) => {
      reply.type("text/plain; charset=utf-8");
      return service.console(parseInstanceId(params.id), Number(query.maxBytes ?? DEFAULT_CONSOLE_BYTES), call());
    },
  );
  app.delete("/v1/instances/:id", { schema: { params: Id } }, async ({ params }, reply) => {
    if (!options.mayDelete) {
      throw new Fault("permission_denied", "instances are deleted on the REST socket only: set rest.socketPath", {
        instanceId: params.id,
      });
    }
    reply.code(202);
    return { operation: await service.collect(parseInstanceId(params.id), call()) };
  });
  return app;
}

function found<T>(thing: T | undefined, what: string, id: string): T {
  if (thing === undefined) throw new Fault("not_found", `${what} ${id} is unknown`);
  return thing;
}

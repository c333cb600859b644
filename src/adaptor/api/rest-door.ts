import { chmod, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { TypeBoxValidatorCompiler } from "@fastify/type-provider-typebox";
import fastify, { type FastifyInstance } from "fastify";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import type { Logger } from "../../base/log.ts";
import { VERSION } from "../../base/version.ts";
import { problemOf } from "./fault-mapping.ts";
import { openApiDocument } from "./open-api.ts";
import { ROUTES, type Route, type RouteDeps } from "./routes.ts";

export type RestAddress = { readonly socketPath: string } | { readonly host: string; readonly port: number };

export interface RestDoorDeps extends RouteDeps {
  readonly log: Logger;
}

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
    const app = createApp(deps, { mayChange: "socketPath" in where });
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
export function createApp(deps: RestDoorDeps, options: { readonly mayChange: boolean }): FastifyInstance {
  const app = fastify({ forceCloseConnections: true });
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
  for (const route of ROUTES) serve(app, route, deps, options.mayChange);
  const document = openApiDocument(ROUTES, VERSION);
  app.get("/openapi.json", async () => document);
  return app;
}

function serve(app: FastifyInstance, route: Route, deps: RestDoorDeps, mayChange: boolean): void {
  const { method, path, params, query, body, answer, status = 200, changes = false } = route;
  const schema = {
    ...(params === undefined ? {} : { params }),
    ...(query === undefined ? {} : { querystring: query }),
    ...(body === undefined ? {} : { body }),
  };
  app.route({
    method,
    url: path,
    schema,
    async handler(request, reply) {
      if (changes && !mayChange) {
        throw new Fault(
          "permission_denied",
          `${method} is answered on the REST socket only: set rest.socketPath, or use kata-remote adaptor`,
        );
      }
      if (path === "/metrics") reply.type(deps.metrics.registry.contentType);
      else if (answer === undefined) reply.type("text/plain; charset=utf-8");
      reply.code(status);
      return route.handle(deps, { params: request.params, query: request.query, body: request.body });
    },
  });
}

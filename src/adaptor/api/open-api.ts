import type { TObject } from "typebox";
import * as types from "./document-types.ts";
import type { Route } from "./routes.ts";

const JSON_TYPE = "application/json";

/** The OpenAPI 3.1 document of the routes: their schemas are JSON Schema already. */
export function openApiDocument(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:([a-zA-Z]+)/g, "{$1}");
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operationOf(route) };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "kata-remote adaptor",
      version,
      description: "What operators and probes see. Routes that change something are served on a unix socket only.",
    },
    paths,
    components: { schemas: { Problem: types.Problem } },
  };
}

function operationOf(route: Route): object {
  const { summary, params, query, body, answer, status = 200, changes = false } = route;
  const problem = { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } };
  return {
    summary: changes ? `${summary} (unix socket only)` : summary,
    operationId: `${route.method.toLowerCase()}${route.path.replaceAll(/[^a-zA-Z]+([a-zA-Z])/g, (_, c: string) => c.toUpperCase())}`,
    parameters: [...parametersOf("path", params), ...parametersOf("query", query)],
    ...(body === undefined ? {} : { requestBody: { required: true, content: { [JSON_TYPE]: { schema: body } } } }),
    responses: {
      [status]: {
        description: "Done",
        content: answer === undefined ? { "text/plain": {} } : { [JSON_TYPE]: { schema: answer } },
      },
      default: { description: "What went wrong", content: problem },
    },
  };
}

function parametersOf(where: "path" | "query", schema: TObject | undefined): object[] {
  if (schema === undefined) return [];
  return Object.entries(schema.properties).map(([name, property]) => ({
    name,
    in: where,
    required: where === "path" || (schema.required ?? []).includes(name),
    schema: property,
  }));
}

import { ArmError, renderError } from "./arm-error.ts";
import type { JsonObject } from "./body.ts";
import type { Operation } from "./operation.ts";
import { type ArmCall, type ArmReply, COMPUTE, IN_SUBSCRIPTION, NETWORK, type Route } from "./route.ts";

function find({ cloud, params }: ArmCall): Operation {
  const operation = cloud.operations.get(params.operationId ?? "");
  if (operation !== undefined) return operation;
  throw new ArmError(404, "NotFound", `The entity was not found: operation '${params.operationId}'.`);
}

function waiting(call: ArmCall): ArmReply {
  const again = { location: `${call.base}${call.id}?${new URLSearchParams([...call.query])}` };
  return { status: 202, headers: { ...again, "retry-after": String(call.cloud.knobs.retryAfterS) } };
}

/** What the Location header leads to: the result itself, not its state. */
function result(call: ArmCall): ArmReply {
  const { status, output, error } = find(call);
  if (status === "InProgress") return waiting(call);
  if (error !== undefined) return { status: error.status, body: renderError(error) as unknown as JsonObject };
  return { status: 200, body: output as JsonObject | undefined };
}

function state(call: ArmCall): ArmReply {
  const operation = find(call);
  const { retryAfterS } = call.cloud.knobs;
  const headers: Record<string, string> =
    operation.status === "InProgress" ? { "retry-after": String(retryAfterS) } : {};
  return { status: 200, body: operation.render(), headers };
}

export const OPERATION_ROUTES: readonly Route[] = [
  {
    ...{ name: "ComputeOperations_Get", method: "GET", action: "Microsoft.Compute/locations/operations/read" },
    path: `${IN_SUBSCRIPTION}/${COMPUTE}/locations/{location}/operations/{operationId}`,
    handle: (call) => (call.query.get("monitor") === "true" ? result(call) : state(call)),
  },
  {
    ...{ name: "NetworkOperations_Get", method: "GET", action: "Microsoft.Network/locations/operations/read" },
    path: `${IN_SUBSCRIPTION}/${NETWORK}/locations/{location}/operations/{operationId}`,
    handle: state,
  },
  {
    ...{ name: "NetworkOperationResults_Get", method: "GET" },
    action: "Microsoft.Network/locations/operationResults/read",
    path: `${IN_SUBSCRIPTION}/${NETWORK}/locations/{location}/operationResults/{operationId}`,
    handle: result,
  },
];

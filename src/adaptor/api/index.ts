export { GrpcDoor, type GrpcDoorDeps, openLocalDoor } from "./grpc-door.ts";

import { openApiDocument } from "./open-api.ts";
import { ROUTES } from "./routes.ts";

/** The OpenAPI document of the REST door. */
export const openApi = (version: string): object => openApiDocument(ROUTES, version);
export { Metrics } from "./metrics.ts";
export { type RestAddress, RestDoor, type RestDoorDeps } from "./rest-door.ts";

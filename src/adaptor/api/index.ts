export { GrpcDoor, type GrpcDoorDeps } from "./grpc-door.ts";
export { Metrics } from "./metrics.ts";
export { type RestAddress, RestDoor, type RestDoorDeps } from "./rest-door.ts";

export { EmbeddedQueue, type EmbeddedQueueDeps } from "./embedded-queue.ts";
export type {
  Attempt,
  HandlerLimits,
  OperationHandler,
  OperationInput,
  OperationKind,
  OperationQueue,
  Submission,
} from "./operation-queue.ts";
export { type Kind, OperationRuns, type OperationRunsDeps } from "./operation-runs.ts";
export { waitUntilOver } from "./wait-until-over.ts";

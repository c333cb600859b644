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

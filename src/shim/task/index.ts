export { dispatch, errorReply, type TaskCaller, type TaskHandlers } from "./dispatch.ts";
export { EventPublisher } from "./event-publisher.ts";
export { Pods } from "./pods.ts";
export { TaskService } from "./task-service.ts";

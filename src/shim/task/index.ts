export { DeletedTasks } from "./deleted-tasks.ts";
export { dispatch, errorReply, type TaskCaller, type TaskHandlers } from "./dispatch.ts";
export { type DoorName, parseDoorName } from "./door-name.ts";
export { EventPublisher } from "./event-publisher.ts";
export { Pods } from "./pods.ts";
export { TaskRecords } from "./task-record.ts";
export { TaskService } from "./task-service.ts";

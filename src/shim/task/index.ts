export type { ApiPod, ApiPods } from "./api-pod.ts";
export { readBundleFile } from "./bundle-file.ts";
export { DeletedTasks } from "./deleted-tasks.ts";
export {
  dispatch,
  errorReply,
  type SandboxHandlers,
  type ServedApis,
  type TaskCaller,
  type TaskHandlers,
} from "./dispatch.ts";
export { type DoorName, parseDoorName } from "./door-name.ts";
export { EventPublisher } from "./event-publisher.ts";
export { Pods } from "./pods.ts";
export { RecordFiles, type RecordFilesDeps } from "./record-files.ts";
export { TaskRecords } from "./task-record.ts";
export { TaskService } from "./task-service.ts";
export { containerKey } from "./task-table.ts";
export { timestamp } from "./timestamp.ts";

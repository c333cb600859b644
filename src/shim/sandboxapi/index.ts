export { SandboxRecords } from "./sandbox-record.ts";
export { SandboxService } from "./sandbox-service.ts";

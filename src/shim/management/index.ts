export { ManagementServer } from "./management-server.ts";

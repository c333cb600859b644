export { joinToGuest } from "./guest-connection.ts";
export { LocalhostDoor } from "./localhost-door.ts";
export { servePodLocalhost } from "./pod-localhost.ts";

export { runGuest } from "./guest.ts";

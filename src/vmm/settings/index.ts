export { type NetworkSettings, networkSettings } from "./network-settings.ts";

export { guestRootStorage, reportingPulls } from "./guest-root.ts";
export { ImagesConfig } from "./images-config.ts";
export { type RootChoice, type RootSource, rootSource } from "./root-source.ts";

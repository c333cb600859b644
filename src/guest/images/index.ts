export { GuestImages, type GuestImagesOptions, type PullStatus } from "./guest-images.ts";

export { type BuiltImage, buildImage, type ImageOptions } from "./build-image.ts";

// Usage: node deploy/ociimages/main.ts NAME...   prints "reference path" for each image.
import { background } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import { buildImage, cacheDirectory } from "./images.ts";

try {
  const names = process.argv.slice(2);
  if (names.length === 0) throw new Fault("invalid_argument", "name the images to make: busybox pause debian");
  for (const name of names) {
    const image = await buildImage(name, cacheDirectory(process.env), background());
    console.log(`${image.reference} ${image.path}`);
  }
} catch (e) {
  console.error(`ociimages: ${Fault.from(e).fullMessage}`);
  process.exitCode = 1;
}

import { join } from "node:path";
import { readIfThere } from "../../base/files.ts";

/** File that the launcher leaves in a bundle: what only containerd's `start` knows. Lines `key=value`. */
export const BUNDLE_FILE = "kata-remote.env";

export interface BundleFacts {
  /** Path of containerd's event socket; "" = there is none (CRI-O): events are logged only. */
  readonly ttrpcAddress: string;
}

/** Source: deploy/bin/containerd-shim-kata-remote-v2. */
export async function readBundleFile(bundle: string): Promise<BundleFacts> {
  const text = (await readIfThere(join(bundle, BUNDLE_FILE))) ?? "";
  const value = (key: string): string =>
    text
      .split("\n")
      .find((line) => line.startsWith(`${key}=`))
      ?.slice(key.length + 1) ?? "";
  return { ttrpcAddress: value("TTRPC_ADDRESS").replace(/^unix:\/\//, "") };
}

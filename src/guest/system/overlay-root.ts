import { chmodSync, chownSync, mkdirSync, rmSync, statSync } from "node:fs";
import { mount } from "./mounts.ts";

export interface OverlayRoot {
  /** Uppermost first; shared with others and never written. */
  readonly lower: readonly string[];
  /** What is written goes below it; what is there is removed. */
  readonly own: string;
  readonly mountPoint: string;
  /** Mount options beside overlay's own. */
  readonly options: readonly string[];
}

/** Mounts a root file system: own changes over directories that containers share. @throws Error with the errno's code */
export function mountOverlayRoot({ lower, own, mountPoint, options }: OverlayRoot): void {
  rmSync(own, { recursive: true, force: true });
  mkdirSync(`${own}/work`, { recursive: true });
  mkdirSync(`${own}/upper`);
  const root = statSync(lower[0] as string); // the root directory shows the attributes of its uppermost layer
  chownSync(`${own}/upper`, root.uid, root.gid);
  chmodSync(`${own}/upper`, root.mode & 0o7777);
  // volatile: fsync of container data only costs time, since the disk does not outlive the VM.
  const layers = `lowerdir=${lower.join(":")},upperdir=${own}/upper,workdir=${own}/work,volatile`;
  mount("overlay", mountPoint, "overlay", [...options, layers]);
}

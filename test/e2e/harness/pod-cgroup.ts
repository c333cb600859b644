import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";

/** The cgroup that kubelet makes for a pod on its node, in every hierarchy; its programs are in the VM, so it stays empty. */
export class PodCgroup {
  readonly path = `/kata-remote-test-${randomBytes(5).toString("hex")}`;
  readonly #made: string[] = [];

  static make(): PodCgroup {
    const cgroup = new PodCgroup();
    for (const line of readFileSync("/proc/mounts", "utf8").split("\n")) {
      const [, point = "", type = ""] = line.split(" ");
      if (!/^cgroup2?$/.test(type)) continue;
      const dir = join(point, cgroup.path);
      mkdirSync(dir, { recursive: true });
      cgroup.#made.push(dir);
    }
    return cgroup;
  }

  remove(): void {
    for (const dir of this.#made.splice(0)) rmdirSync(dir);
  }
}

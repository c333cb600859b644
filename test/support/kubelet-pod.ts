import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeVolume } from "./kubelet-volume.ts";

export type FollowedKind = "configmap" | "secret" | "projected" | "downward-api";

/** The directory that kubelet has for one pod, with its names, modes and mounts. `close` unmounts. */
export class KubeletPod {
  readonly dir: string;
  readonly #mounts: string[] = [];

  /** @param root kubelet's root directory */
  constructor(root: string, uid: string) {
    this.dir = join(root, "pods", uid);
    mkdirSync(this.dir, { recursive: true });
  }

  etcHosts(text: string): string {
    const path = join(this.dir, "etc-hosts");
    writeFileSync(path, text);
    return path;
  }

  /** The file for a container's last words. */
  terminationLog(container: string): string {
    const dir = join(this.dir, "containers", container);
    mkdirSync(dir, { recursive: true });
    const path = join(dir, "1a2b3c4d");
    writeFileSync(path, "");
    chmodSync(path, 0o666);
    return path;
  }

  /** A ConfigMap or the like; again: its next version. Secrets and tokens are in memory, as kubelet has them. */
  volume(kind: FollowedKind, name: string, files: Readonly<Record<string, string>>, mode?: number): string {
    const path = this.#volumePath(kind, name);
    if (kind !== "configmap" && !existsSync(path)) this.#tmpfs(path, []);
    writeVolume(path, files, mode);
    return path;
  }

  emptyDir(name: string, options: { readonly memoryBytes?: number; readonly fsGroup?: number } = {}): string {
    const path = this.#volumePath("empty-dir", name);
    if (options.memoryBytes === undefined) mkdirSync(path, { recursive: true });
    else this.#tmpfs(path, ["-o", `size=${options.memoryBytes}`]);
    chmodSync(path, 0o777);
    if (options.fsGroup !== undefined) {
      chownSync(path, 0, options.fsGroup);
      chmodSync(path, 0o2777);
    }
    return path;
  }

  /** Mounts a part of a volume for one container. */
  subPath(volume: string, below: string, container: string, index: number): string {
    const source = join(volume, below);
    if (!existsSync(source)) mkdirSync(source, { recursive: true, mode: 0o777 });
    const name = volume.split("/").at(-1) ?? "";
    const point = join(this.dir, "volume-subpaths", name, container, String(index));
    mkdirSync(join(point, ".."), { recursive: true });
    if (statSync(source).isDirectory()) mkdirSync(point);
    else writeFileSync(point, "");
    this.#mount(["--bind", source, point], point);
    return point;
  }

  close(): void {
    for (const point of this.#mounts.splice(0).reverse()) execFileSync("umount", ["-l", point]);
  }

  #volumePath(kind: string, name: string): string {
    return join(this.dir, "volumes", `kubernetes.io~${kind}`, name);
  }

  #tmpfs(path: string, options: readonly string[]): void {
    mkdirSync(path, { recursive: true });
    this.#mount(["-t", "tmpfs", ...options, "tmpfs", path], path);
  }

  #mount(args: readonly string[], point: string): void {
    execFileSync("mount", args);
    this.#mounts.push(point);
  }
}

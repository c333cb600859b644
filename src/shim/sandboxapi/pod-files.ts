import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { PodConfig } from "./pod-config.ts";

/** Files that containerd makes only for pods with a sandbox container, by where containers have them; in the pod's bundle. */
export function podFiles(
  bundle: string,
): Readonly<Record<"/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf", string>> {
  return {
    "/etc/hostname": join(bundle, "kata-remote.hostname"),
    "/etc/hosts": join(bundle, "kata-remote.hosts"),
    "/etc/resolv.conf": join(bundle, "kata-remote.resolv.conf"),
  };
}

/**
 * Writes them. Repeatable. @returns the lines of resolv.conf
 * Source: containerd internal/cri/server/podsandbox/sandbox_run_linux.go: hosts is the node's, as is resolv.conf of a pod that says nothing.
 */
export async function writePodFiles(bundle: string, { hostname, dns }: PodConfig): Promise<readonly string[]> {
  const paths = podFiles(bundle);
  const resolv = dns.length > 0 ? `${dns.join("\n")}\n` : await ofNode("/etc/resolv.conf");
  await writeFile(paths["/etc/hostname"], `${hostname}\n`, { mode: 0o644 });
  await writeFile(paths["/etc/hosts"], await ofNode("/etc/hosts"), { mode: 0o644 });
  await writeFile(paths["/etc/resolv.conf"], resolv, { mode: 0o644 });
  return resolv.split("\n").filter((line) => line !== "");
}

async function ofNode(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => ""); // a node may be without
}

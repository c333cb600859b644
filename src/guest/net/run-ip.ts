import { writeFile } from "node:fs/promises";
import { Fault } from "../../base/fault.ts";
import type { Children } from "../system/children.ts";
import { inNamespace } from "../system/namespaces.ts";
import type { IpRunner } from "./guest-network.ts";
import type { PlanNamespaces } from "./ip-batches.ts";

export interface RunIpDeps {
  readonly children: Children;
  readonly namespaces: PlanNamespaces;
  /** Where batches are written. */
  readonly dir: string;
}

/** Runs batches with iproute2 (busybox's `ip` knows no VXLAN). */
export function runIp(deps: RunIpDeps): IpRunner {
  return async (namespace, batch, force = false) => {
    const path = `${deps.dir}/ip-${namespace}.batch`;
    await writeFile(path, batch);
    const args = [...(force ? ["-force"] : []), "-batch", path];
    const start = (): ReturnType<Children["run"]> => deps.children.run("/bin/ip", args);
    const { exitCode, stderr } = await (namespace === "root"
      ? start()
      : inNamespace("net", deps.namespaces[namespace], start));
    if (exitCode === 0 || force) return;
    const line = Number(/Command failed \S+:(\d+)/.exec(stderr)?.[1] ?? 0);
    const command = batch.split("\n")[line - 1] ?? "its first command";
    throw new Fault(
      "failed_precondition",
      `the pod's network cannot be made in its VM: "ip ${command}" ended with: ${stderr.trim().slice(0, 500)}`,
    );
  };
}

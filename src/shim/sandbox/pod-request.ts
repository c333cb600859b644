import { readFile } from "node:fs/promises";
import type { NodeFiles } from "../volumes/index.ts";
import type { PodOverrides } from "./pod-overrides.ts";
import type { PreparedContainer } from "./prepared-container.ts";
import { type PodSize, podSize } from "./sizing.ts";
import { tmpfsSize } from "./source-facts.ts";

/** What a pod's VM is made from, whether a sandbox container (Task API) or a pod's configuration (Sandbox API) says it. */
export interface PodRequest {
  readonly hostname: string;
  /** Lines of its resolv.conf. */
  readonly dns: readonly string[];
  /** Of its /dev/shm; undefined: as usual. */
  readonly shmBytes: number | undefined;
  readonly size: PodSize;
  readonly overrides: PodOverrides;
  /** A process of its own holds the process namespace that its containers share: there is no sandbox container. */
  readonly holdsProcesses: boolean;
}

/** Reads what a pod is from its sandbox container, or from the only one that it has. @throws Fault invalid_argument */
export async function podRequest(prepared: PreparedContainer, files: NodeFiles): Promise<PodRequest> {
  const { spec, role, overrides, request } = prepared;
  const shm = spec.mounts?.find((m) => m.destination === "/dev/shm");
  return {
    hostname: spec.hostname === undefined || spec.hostname === "" ? request.id : spec.hostname,
    dns: await resolvConf(prepared),
    shmBytes: shm?.source?.startsWith("/") ? await tmpfsSize(files.reach(shm.source)) : undefined,
    size: podSize(spec, role, overrides),
    overrides,
    holdsProcesses: false,
  };
}

async function resolvConf({ spec }: PreparedContainer): Promise<string[]> {
  const source = spec.mounts?.find((m) => m.destination === "/etc/resolv.conf")?.source;
  if (source === undefined) return [];
  return (await readFile(source, "utf8")).split("\n").filter((line) => line !== "");
}

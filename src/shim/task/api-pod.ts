import type { PodExtras, PodSandbox } from "../sandbox/index.ts";

/** A pod that the Sandbox API asked for, as far as the Task API has to do with it. */
export interface ApiPod {
  /** What containerd was told. */
  readonly pid: number;
  /** Undefined until it is started, and once it is stopped. */
  readonly sandbox: PodSandbox | undefined;
  readonly extras: PodExtras;
}

/** The pods of the Sandbox API, which have no task of their own. */
export interface ApiPods {
  find(address: string, namespace: string, id: string): ApiPod | undefined;
  /** containerd's connection to the pod's shim is gone, or it wants nothing left of it. */
  cleanup(address: string, namespace: string, id: string): Promise<void>;
}

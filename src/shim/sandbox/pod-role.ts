import { Fault } from "../../base/fault.ts";
import type { ContainerType } from "../agent/index.ts";

/** What a container is to its pod. */
export interface PodRole {
  readonly containerType: ContainerType;
  /** Id of the pod's sandbox container (its own id, unless it is a pod_container). */
  readonly sandboxContainerId: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
}

/** First match wins. Source: reference §1.6; containerd pkg/cri/annotations, cri-o pkg/annotations. */
const RUNTIMES = [
  {
    type: "io.kubernetes.cri.container-type",
    sandbox: "sandbox",
    sandboxId: "io.kubernetes.cri.sandbox-id",
    name: "io.kubernetes.cri.sandbox-name",
    namespace: "io.kubernetes.cri.sandbox-namespace",
    uid: "io.kubernetes.cri.sandbox-uid",
  },
  {
    type: "io.kubernetes.cri-o.ContainerType",
    sandbox: "sandbox",
    sandboxId: "io.kubernetes.cri-o.SandboxID",
    name: "io.kubernetes.cri-o.KubeName",
    namespace: "io.kubernetes.cri-o.Namespace",
    uid: "io.kubernetes.pod.uid",
  },
  {
    type: "io.kubernetes.docker.type",
    sandbox: "podsandbox",
    sandboxId: "io.kubernetes.sandbox.id",
    name: "io.kubernetes.pod.name",
    namespace: "io.kubernetes.pod.namespace",
    uid: "io.kubernetes.pod.uid",
  },
] as const;

/**
 * Reads from a spec's annotations whether the container is a pod's sandbox, one of its containers or alone (ctr).
 * @throws Fault invalid_argument naming the annotation and its value
 */
export function podRole(annotations: Readonly<Record<string, string>>, containerId: string): PodRole {
  const keys = RUNTIMES.find((r) => annotations[r.type] !== undefined);
  if (keys === undefined) {
    return {
      containerType: "single_container",
      sandboxContainerId: containerId,
      pod: { namespace: "", name: containerId, uid: "" },
    };
  }
  const pod = {
    namespace: annotations[keys.namespace] ?? "",
    name: annotations[keys.name] ?? "",
    uid: annotations[keys.uid] ?? "",
  };
  const value = annotations[keys.type];
  if (value === keys.sandbox) return { containerType: "pod_sandbox", sandboxContainerId: containerId, pod };
  if (value !== "container") {
    throw new Fault(
      "invalid_argument",
      `annotation ${keys.type} is "${value}": "${keys.sandbox}" and "container" are known`,
    );
  }
  const sandboxContainerId = annotations[keys.sandboxId] ?? "";
  if (sandboxContainerId === "") {
    throw new Fault(
      "invalid_argument",
      `annotation ${keys.sandboxId} is missing: it names the pod of container ${containerId}`,
    );
  }
  return { containerType: "pod_container", sandboxContainerId, pod };
}

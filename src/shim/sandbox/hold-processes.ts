import type { Call } from "../../base/call.ts";
import { Storage } from "../../gen/agent/agent.ts";
import { GUEST_PULL_DRIVER } from "../../guestwire/index.ts";
import { type Agent, guestRootfs, OciSpec, parseOci, specToGuest } from "../agent/index.ts";

/** By which a guest gives a container the pause image that is part of it. Source: reference §2.5, "Guest pull". */
const ANNOTATIONS = { "io.kubernetes.cri.container-type": "sandbox" };

/**
 * Starts a process in the guest in whose process namespace the pod's containers are: the agent takes its first
 * container's. Nobody on the node knows of it; it goes with the VM.
 */
export async function holdProcesses(agent: Agent, podId: string, call: Call): Promise<void> {
  const rootPath = guestRootfs(podId);
  const spec = {
    ociVersion: "1.0.2",
    process: { args: ["/pause"], cwd: "/", user: { uid: 65_535, gid: 65_535 }, noNewPrivileges: true },
    root: { path: rootPath, readonly: true },
    annotations: ANNOTATIONS,
    mounts: [{ destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] }],
    linux: { namespaces: ["pid", "ipc", "uts", "mount"].map((type) => ({ type })) },
  };
  const options = { containerType: "pod_sandbox", bundle: `/${podId}`, rootPath, mounts: spec.mounts } as const;
  const guest = specToGuest(parseOci(OciSpec, JSON.stringify(spec), "pause"), { ...options, seccomp: false });
  const storage = Storage.fromPartial({
    driver: GUEST_PULL_DRIVER,
    driverOptions: [`${GUEST_PULL_DRIVER}=${JSON.stringify({ metadata: ANNOTATIONS })}`],
    source: "pause",
    fstype: "overlay",
    mountPoint: rootPath,
  });
  await agent.createContainer(
    { containerId: podId, execId: podId, storages: [storage], OCI: guest.spec, sandboxPidns: false },
    call,
  );
  await agent.startContainer(podId, call);
}

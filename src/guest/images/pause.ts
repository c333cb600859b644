import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import type { Storage } from "../../gen/agent/agent.ts";
import type { Process } from "../../gen/agent/oci.ts";
import { GUEST_PULL_DRIVER } from "../../guestwire/index.ts";

/** The guest's own statically linked program. */
const BUSYBOX = "/bin/busybox";
/** Ends at once when asked to, and reaps what the pod leaves behind where processes are shared. */
const COMMAND = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait; done"];
/** By which runtimes' annotations a pod's own container is known. Source: kata-agent, image pull. */
const SANDBOX_MARKS: Readonly<Record<string, string>> = {
  "io.kubernetes.cri.container-type": "sandbox",
  "io.kubernetes.cri-o.ContainerType": "sandbox",
  "io.kubernetes.docker.type": "podsandbox",
};

/** Whether a guest-pull storage stands for the pod's own container, whose image is part of the guest. */
export function isPause(storage: Storage): boolean {
  const option = storage.driverOptions.find((o) => o.startsWith(`${GUEST_PULL_DRIVER}=`));
  if (option === undefined) return false;
  let metadata: Readonly<Record<string, unknown>>;
  try {
    const parsed = JSON.parse(option.slice(GUEST_PULL_DRIVER.length + 1)) as { metadata?: typeof metadata } | null;
    metadata = parsed?.metadata ?? {};
  } catch {
    return false; // an image of that name is looked for then
  }
  return Object.entries(SANDBOX_MARKS).some(([key, value]) => metadata[key] === value);
}

/** The process that a pod's own container gets, whatever image the node took it from. */
export function pauseProcess(process: Process): Process {
  return { ...process, Args: [...COMMAND], Cwd: "/", Env: ["PATH=/bin"], Terminal: false };
}

/** Fills an empty directory with the root file system of a pod's own container. */
export function makePauseTree(directory: string): void {
  for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"]) mkdirSync(`${directory}/${name}`, { mode: 0o755 });
  copyFileSync(BUSYBOX, `${directory}/bin/busybox`);
  chmodSync(`${directory}/bin/busybox`, 0o755);
  for (const applet of ["sh", "sleep"]) symlinkSync("busybox", `${directory}/bin/${applet}`);
  writeFileSync(`${directory}/etc/passwd`, "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
}

import { RUNTIME } from "../e2e/harness/containerd.ts";
import { BUSYBOX } from "../e2e/harness/images.ts";
import { signal, until } from "../e2e/harness/processes.ts";
import { World } from "../e2e/harness/world.ts";
import { DAEMON_DEATH } from "./chaos-case.ts";
import { messageOf } from "./containerd-stand-in.ts";
import type { Problem } from "./run-case.ts";

/** A case with real containerd, real VMs and what is installed in dist/: a few, to show that the stand-in is like it. */
export interface ContainerdCase {
  readonly name: string;
  /** Strikes as soon as the VM of the second pod runs. @returns resolves when all is whole again */
  readonly strike: (world: World) => Promise<void>;
  readonly create: "succeeds" | "fails" | "either";
  readonly bystander: "runs" | "ends";
}

const BOUND_MS = 90_000;
const SLEEP = ["sleep", "86400"];

export const CONTAINERD_CASES: readonly ContainerdCase[] = [
  {
    name: "containerd: adaptor killed as the VM starts",
    strike: async (world) => {
      await world.stopAdaptor("SIGKILL");
      await world.startAdaptor();
    },
    ...{ create: "succeeds", bystander: "runs" },
  },
  {
    name: "containerd: node daemon killed as the VM starts",
    strike: async (world) => signal(world.daemonPid() ?? 0, "SIGKILL"),
    ...(DAEMON_DEATH === "ends-pods"
      ? { create: "fails", bystander: "ends" }
      : { create: "either", bystander: "runs" }),
  },
  {
    name: "containerd: VM killed as it starts",
    strike: async (world) => signal(newestVm(world) ?? 0, "SIGKILL"),
    ...{ create: "fails", bystander: "runs" },
  },
  {
    name: "containerd: containerd killed as the VM starts",
    strike: async (world) => world.containerd.restart("SIGKILL"),
    ...{ create: "either", bystander: "runs" },
  },
];

export async function runContainerdCase(chaos: ContainerdCase): Promise<readonly Problem[]> {
  const problems: Problem[] = [];
  const problem = (kind: Problem["kind"], text: string): void => void problems.push({ kind, text });
  const world = await World.start();
  try {
    const { containerd } = world;
    const run = (id: string): string[] => ["run", "-d", "--runtime", RUNTIME, BUSYBOX, id, ...SLEEP];
    await containerd.ctr(run("bystander"));
    const starting = containerd.startCtr(run("pod"));
    await until("the second VM to run", BOUND_MS, () => world.vms().length === 2);
    await chaos.strike(world);
    const { code, stderr } = await starting.done;
    if (chaos.create === "succeeds" && code !== 0) problem("lost", `the pod was not made: ${stderr}`);
    if (chaos.create === "fails" && code === 0) problem("lost", "the pod's creation should have failed");
    const runs = async (id: string): Promise<boolean> => (await containerd.taskStatus(id)) === "RUNNING";
    if (code === 0 && !(await runs("pod"))) problem("lost", "the pod was started and does not run");
    if (chaos.bystander === "runs" && !(await runs("bystander"))) problem("lost", "the bystander does not run");
    if (chaos.bystander === "ends") {
      await until("containerd to know of the bystander's end", BOUND_MS, async () => !(await runs("bystander"))).catch(
        (e: unknown) => problem("lost", messageOf(e)),
      );
    }
    for (const id of ["pod", "bystander"]) await containerd.endTask(id);
    await world.untilNoVm(BOUND_MS).catch((e: unknown) => problem("leaked", messageOf(e)));
  } catch (e) {
    problem("stuck", `the case could not be run to its end: ${messageOf(e)}`);
  } finally {
    await world.close().catch((e: unknown) => problem("leaked", messageOf(e)));
  }
  return problems;
}

function newestVm(world: World): number | undefined {
  return world
    .vms()
    .map((vm) => vm.pid)
    .sort((a, b) => a - b)
    .at(-1);
}

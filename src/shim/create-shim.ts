import { existsSync } from "node:fs";
import { VERSION } from "../base/version.ts";
import type { ShimDeps, ShimService } from "./shim-service.ts";
import { dispatch, EventPublisher, errorReply, Pods, parseDoorName, TaskMarks, TaskService } from "./task/index.ts";

/** Name of the namespace in a call's metadata. Source: containerd pkg/namespaces/ttrpc.go. */
const NAMESPACE_KEY = "containerd-namespace-ttrpc";
const FLUSH_MS = 3_000;

export function createShim(deps: ShimDeps): ShimService {
  const pods = new Pods(deps);
  const publisher = new EventPublisher({ log: deps.log, now: deps.now ?? ((): Date => new Date()) });
  const marks = new TaskMarks(deps.runDir);
  const tasks = new TaskService({
    config: deps.config,
    log: deps.log,
    pods,
    marks,
    publisher,
    pid: process.pid,
    version: VERSION,
    hostCgroup: existsSync("/sys/fs/cgroup/cgroup.controllers") ? "v2" : "v1",
  });
  return {
    async answer(request, call) {
      try {
        const door = parseDoorName(deps.doorAddress(request.door));
        const said = request.metadata.find(([key]) => key === NAMESPACE_KEY)?.[1];
        const { address, namespace = said ?? "default" } = door;
        return { ok: true, payload: await dispatch(tasks, request, { address, namespace, call }) };
      } catch (error) {
        return errorReply(error);
      }
    },
    async recover(call) {
      await marks.clear();
      await pods.recover(call);
    },
    cleanup: (address, namespace, id, call) => tasks.cleanup(address, namespace, id, call),
    status: () => pods.all.map((sandbox) => sandbox.status()),
    sandboxCount: () => pods.count,
    liveSandboxes: (hypervisor) =>
      pods.all
        .filter((s) => s.state !== "stopped" && (hypervisor === undefined || s.record.hypervisor === hypervisor))
        .map((s) => s.id),
    onVmLoss: (loss) => pods.get(loss.sandboxId)?.lose(loss.reason),
    async close(reason) {
      await pods.close(reason);
      await publisher.close(FLUSH_MS);
    },
  };
}

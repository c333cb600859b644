import { existsSync } from "node:fs";
import type { SandboxId } from "../base/ids.ts";
import { VERSION } from "../base/version.ts";
import type { ShimDeps, ShimService } from "./shim-service.ts";
import {
  DeletedTasks,
  dispatch,
  EventPublisher,
  errorReply,
  Pods,
  parseDoorName,
  TaskRecords,
  TaskService,
} from "./task/index.ts";

/** Name of the namespace in a call's metadata. Source: containerd pkg/namespaces/ttrpc.go. */
const NAMESPACE_KEY = "containerd-namespace-ttrpc";
const FLUSH_MS = 3_000;

export function createShim(deps: ShimDeps): ShimService {
  const { runDir, log, now = (): Date => new Date() } = deps;
  const pods = new Pods(deps);
  const publisher = new EventPublisher({ runDir, log, now });
  const records = new TaskRecords(deps);
  const deleted = new DeletedTasks(runDir);
  const tasks = new TaskService({
    config: deps.config,
    ...{ log, pods, records, deleted, publisher },
    pid: () => deps.relay.pid,
    version: VERSION,
    hostCgroup: existsSync("/sys/fs/cgroup/cgroup.controllers") ? "v2" : "v1",
  });
  return {
    async answer(request, call) {
      try {
        const door = parseDoorName(deps.doorAddress(request.door));
        const said = request.metadata.find(([key]) => key === NAMESPACE_KEY)?.[1];
        const { address, namespace = said ?? "default" } = door;
        const caller = { address, namespace, call: { ...call, requestKey: request.key } };
        return { ok: true, payload: await dispatch(tasks, request, caller) };
      } catch (error) {
        return errorReply(error);
      }
    },
    async recover(call) {
      const held = await deps.relay.held(call);
      await deleted.restore(held.taskKeys);
      await publisher.restore();
      const found = await records.list();
      const whole = new Set(
        found
          .filter((r) => r.container !== undefined && r.container.role.containerType !== "pod_container")
          .map((r) => r.sandboxId),
      );
      const { cleaned } = await pods.recover(held, (id) => whole.has(id), call);
      await tasks.restore(found, (id) => pods.get(id as SandboxId), held.taskKeys);
      pods.loseChildren();
      await cleaned;
    },
    cleanup: (address, namespace, id, call) => tasks.cleanup(address, namespace, id, call),
    status: () => pods.all.map((sandbox) => sandbox.status()),
    sandboxCount: () => pods.count,
    liveSandboxes: (hypervisor) =>
      pods.all
        .filter((s) => s.state !== "stopped" && (hypervisor === undefined || s.record.hypervisor === hypervisor))
        .map((s) => s.id),
    onVmLoss: (loss) => pods.get(loss.sandboxId)?.lose(loss.reason),
    async handOver(reason) {
      await pods.endChildren(reason);
      records.freeze();
    },
    async close(reason) {
      await pods.close(reason);
      await publisher.close(FLUSH_MS);
    },
  };
}

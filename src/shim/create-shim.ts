import { existsSync } from "node:fs";
import type { SandboxId } from "../base/ids.ts";
import { VERSION } from "../base/version.ts";
import { SandboxRecords, SandboxService } from "./sandboxapi/index.ts";
import { annotationGate, RuntimeOptions } from "./settings/index.ts";
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
  const sandboxRecords = new SandboxRecords(deps);
  const common = {
    ...{ log, pods, now, pid: () => deps.relay.pid, runtimeOptions: new RuntimeOptions({ log }) },
    gate: annotationGate(deps.config.enableAnnotations, "shim.enableAnnotations of the node's configuration"),
    hostCgroup: existsSync("/sys/fs/cgroup/cgroup.controllers") ? ("v2" as const) : ("v1" as const),
  };
  const sandbox = new SandboxService({ ...common, records: sandboxRecords });
  const task = new TaskService({
    ...{ ...common, config: deps.config, records, deleted, publisher, apiPods: sandbox },
    version: VERSION,
  });
  return {
    async answer(request, call) {
      try {
        const door = parseDoorName(deps.doorAddress(request.door));
        const said = request.metadata.find(([key]) => key === NAMESPACE_KEY)?.[1];
        const { address, namespace = said ?? "default" } = door;
        const caller = { address, namespace, call: { ...call, requestKey: request.key } };
        return { ok: true, payload: await dispatch({ task, sandbox }, request, caller) };
      } catch (error) {
        return errorReply(error);
      }
    },
    async recover(call) {
      const held = await deps.relay.held(call);
      await deleted.restore(held.taskKeys);
      await publisher.restore();
      const found = await records.list();
      const apiPods = await sandboxRecords.list();
      const first = found.filter(
        (r) => r.container !== undefined && r.container.role.containerType !== "pod_container",
      );
      const whole = new Set([...first, ...apiPods].map((r) => r.sandboxId));
      const { cleaned } = await pods.recover(held, (id) => whole.has(id), call);
      await sandbox.restore(apiPods, held.taskKeys);
      await task.restore(found, (id) => pods.get(id as SandboxId), held.taskKeys);
      pods.loseChildren();
      await cleaned;
    },
    cleanup: (address, namespace, id, call) => task.cleanup(address, namespace, id, call),
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
      sandboxRecords.freeze();
    },
    async close(reason) {
      await pods.close(reason);
      await publisher.close(FLUSH_MS);
    },
  };
}

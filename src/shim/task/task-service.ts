import { type Call, withDeadline } from "../../base/call.ts";
import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import type { CreateTaskRequest, StateResponse } from "../../gen/containerd/task/v2/shim.ts";
import { networkNamespacePath } from "../agent/index.ts";
import {
  type AnnotationGate,
  type Container,
  type ContainerFacts,
  type Exit,
  type PodSandbox,
  type PreparedContainer,
  podRequest,
  prepareContainer,
} from "../sandbox/index.ts";
import type { RuntimeOptions } from "../settings/index.ts";
import type { CleanupResult, ShimDeps } from "../shim-service.ts";
import { cloudVolumes } from "../volumes/index.ts";
import type { ApiPods } from "./api-pod.ts";
import { readBundleFile } from "./bundle-file.ts";
import { checkPaths } from "./check-paths.ts";
import type { DeletedTasks } from "./deleted-tasks.ts";
import type { TaskCaller, TaskHandlers } from "./dispatch.ts";
import type { EventPublisher } from "./event-publisher.ts";
import type { Pods } from "./pods.ts";
import type { TaskRecord, TaskRecords } from "./task-record.ts";
import { recordOf, type Task, TaskTable } from "./task-table.ts";
import { answerOfDelete, jsonOf, PROCESS_TYPE, readResources, STATUS, stdioOf, waitFor } from "./task-words.ts";
import { timestamp } from "./timestamp.ts";

export interface TaskServiceDeps extends Pick<ShimDeps, "config" | "log"> {
  readonly pods: Pods;
  readonly records: TaskRecords;
  readonly deleted: DeletedTasks;
  readonly publisher: EventPublisher;
  readonly apiPods: ApiPods;
  readonly runtimeOptions: RuntimeOptions;
  /** Where a runtime's file says nothing. */
  readonly gate: AnnotationGate;
  /**
   * Reported for every process of a new task: the guest's mean nothing on the node. Never 0; of a process that lives as
   * long as the pod's guest connection.
   */
  readonly pid: () => number;
  readonly version: string;
  readonly hostCgroup: "v1" | "v2";
}

/** containerd waits 3 s for Shutdown. Source: io.containerd.timeout.shim.shutdown. */
const SHUTDOWN_MS = 2_500;
/** containerd gives `delete` 5 s, the launcher's part included. Source: io.containerd.timeout.shim.cleanup. */
const CLEANUP_MS = 3_500;
const EMPTY = {};

/** containerd's Task API: its words turned into pods and containers. Source: reference §1.8. */
export class TaskService implements TaskHandlers {
  readonly #deps: TaskServiceDeps;
  readonly #tasks = new TaskTable();

  constructor(deps: TaskServiceDeps) {
    this.#deps = deps;
  }

  readonly create: TaskHandlers["create"] = async (request, caller) => {
    if (request.checkpoint !== "" || request.parentCheckpoint !== "") {
      throw new Fault(
        "unimplemented",
        `checkpoint = "${request.checkpoint || request.parentCheckpoint}": a pod VM cannot be restored from a checkpoint; create the container without`,
      );
    }
    checkPaths(request);
    const createKey = caller.call.requestKey ?? "";
    const known = this.#tasks.find(caller.address, caller.namespace, request.id);
    // It comes again because the daemon that did it died before it could say so.
    if (known?.container !== undefined && createKey !== "" && known.createKey === createKey) return { pid: known.pid };
    const done = deferred<void>();
    const task: Task = {
      ...{ createKey, pid: this.#deps.pid(), sink: "" },
      address: caller.address,
      namespace: caller.namespace,
      id: request.id,
      bundle: request.bundle,
      abort: new AbortController(),
      created: done.promise,
      sandbox: undefined,
      container: undefined,
    };
    this.#tasks.add(task);
    this.#deps.deleted.forgetEnded(task);
    try {
      await this.#save(task);
      await this.#create(task, request, {
        ...caller.call,
        signal: AbortSignal.any([caller.call.signal, task.abort.signal]),
      });
    } catch (error) {
      await this.#deps.records.remove(task);
      this.#tasks.remove(task);
      this.#deps.log.error({ err: error, container: request.id, namespace: caller.namespace }, "container not created");
      throw error;
    } finally {
      done.resolve();
    }
    return { pid: task.pid };
  };

  readonly start: TaskHandlers["start"] = async ({ id, execId }, caller) => {
    const { pid } = this.#task(id, caller);
    const container = this.#container(id, caller);
    await (execId === "" ? container.start(caller.call) : container.startExec(execId, caller.call));
    return { pid };
  };

  readonly state: TaskHandlers["state"] = async ({ id, execId }, caller) => {
    const task = this.#task(id, caller);
    const container = this.#container(id, caller);
    const process = container.process(execId);
    const { exit } = process;
    const response: StateResponse = {
      id,
      bundle: task.bundle,
      pid: task.pid,
      status: STATUS[execId === "" ? container.state : process.state],
      ...process.stdio,
      exitStatus: exit?.status ?? 0,
      exitedAt: exit === undefined ? undefined : timestamp(exit.at),
      execId,
    };
    return response;
  };

  readonly delete: TaskHandlers["delete"] = async ({ id, execId }, caller) => {
    const { deleted } = this.#deps;
    const task = this.#tasks.find(caller.address, caller.namespace, id);
    const container = task?.container;
    const gone = task === undefined && execId === "" ? { ...caller, id } : undefined;
    // An earlier daemon did it and died before it could say so.
    const before = await deleted.find(caller.call.requestKey, gone);
    if (before !== undefined && (task === undefined || (execId !== "" && container?.has(execId) === false)))
      return answerOfDelete(before.pid, before.exit);
    const { pid } = this.#task(id, caller);
    const living = this.#container(id, caller);
    const remember = (exit: Exit): Promise<void> => deleted.add(caller.call.requestKey, { pid, exit });
    if (execId !== "") return answerOfDelete(pid, await living.deleteExec(execId, remember));
    const exit = await living.delete(caller.call);
    await remember(exit);
    if (task !== undefined) await this.#forget(task, living);
    return answerOfDelete(pid, exit);
  };

  readonly pids: TaskHandlers["pids"] = async ({ id }, caller) => {
    const pod = this.#deps.apiPods.find(caller.address, caller.namespace, id);
    if (pod !== undefined) return { processes: [{ pid: pod.pid, info: undefined }] };
    this.#container(id, caller);
    return { processes: [{ pid: this.#task(id, caller).pid, info: undefined }] };
  };

  readonly pause: TaskHandlers["pause"] = async ({ id }, caller) => {
    await this.#container(id, caller).pause(caller.call);
    return EMPTY;
  };

  readonly resume: TaskHandlers["resume"] = async ({ id }, caller) => {
    await this.#container(id, caller).resume(caller.call);
    return EMPTY;
  };

  readonly checkpoint: TaskHandlers["checkpoint"] = async ({ id, path }) => {
    throw new Fault("unimplemented", `task ${id} cannot be checkpointed (path "${path}"): a pod VM has no checkpoints`);
  };

  readonly kill: TaskHandlers["kill"] = async ({ id, execId, signal }, caller) => {
    await this.#container(id, caller).process(execId).kill(signal, caller.call);
    return EMPTY;
  };

  readonly exec: TaskHandlers["exec"] = async (request, caller) => {
    const container = this.#container(request.id, caller);
    if (request.execId === "") throw new Fault("invalid_argument", "exec_id is empty: the new process needs a name");
    const spec = jsonOf(request.spec, PROCESS_TYPE, "exec spec");
    await container.addExec(request.execId, spec, stdioOf(request), caller.call);
    return EMPTY;
  };

  readonly resizePty: TaskHandlers["resizePty"] = async ({ id, execId, width, height }, caller) => {
    await this.#container(id, caller).process(execId).resize(height, width, caller.call);
    return EMPTY;
  };

  readonly closeIO: TaskHandlers["closeIO"] = async ({ id, execId, stdin }, caller) => {
    const process = this.#container(id, caller).process(execId);
    if (stdin) await process.closeStdin(caller.call);
    return EMPTY;
  };

  readonly update: TaskHandlers["update"] = async (request, caller) => {
    const container = this.#container(request.id, caller);
    const resources = readResources(request);
    // The pause container has no limits of its own.
    if (container.role.containerType !== "pod_sandbox") await container.update(resources, caller.call);
    return EMPTY;
  };

  readonly wait: TaskHandlers["wait"] = async ({ id, execId }, caller) => {
    const exit = await this.#container(id, caller).process(execId).wait(caller.call);
    return { exitStatus: exit.status, exitedAt: timestamp(exit.at) };
  };

  readonly stats: TaskHandlers["stats"] = async ({ id }, caller) => {
    const { typeUrl, value } = await this.#container(id, caller).stats(this.#deps.hostCgroup, caller.call);
    return { stats: { typeUrl, value: Buffer.from(value) } };
  };

  readonly connect: TaskHandlers["connect"] = async ({ id }, caller) => {
    // containerd asks for pods of the Sandbox API too, when it starts again.
    const { pid } = this.#deps.apiPods.find(caller.address, caller.namespace, id) ?? this.#task(id, caller);
    return { shimPid: pid, taskPid: pid, version: this.#deps.version };
  };

  /** The daemon serves other pods: this only waits for the end of this one's VM, as long as containerd waits. */
  readonly shutdown: TaskHandlers["shutdown"] = async ({ id }, caller) => {
    if (this.#tasks.find(caller.address, caller.namespace, id) !== undefined) return EMPTY;
    const ending = this.#deps.pods.all.filter(
      ({ record }) => record.id === id && record.namespace === caller.namespace && record.address === caller.address,
    );
    await waitFor(
      ending.map((sandbox) => this.#deps.pods.settle(sandbox)),
      withDeadline(SHUTDOWN_MS, caller.call),
    );
    return EMPTY;
  };

  /**
   * Goes on with the tasks of an earlier daemon.
   * @param sandboxOf the pods that live on, by sandbox id
   * @param expected keys of Task calls that will come again
   */
  async restore(
    records: readonly TaskRecord[],
    sandboxOf: (sandboxId: string) => PodSandbox | undefined,
    expected: ReadonlySet<string>,
  ): Promise<void> {
    for (const record of records) {
      const sandbox = sandboxOf(record.sandboxId);
      if (sandbox === undefined || record.container === undefined) {
        // Nothing of it lives on, or its creation comes again and finds in the guest what there is.
        if (sandbox !== undefined && !expected.has(record.createKey)) void sandbox.removeHalfCreated(record.id);
        if (sandbox === undefined) this.#deps.deleted.noteEnded(record);
        await this.#deps.records.remove(record);
        continue;
      }
      const { address, namespace, id, bundle, createKey, pid, sink } = record;
      const task: Task = {
        ...{ address, namespace, id, bundle, createKey, pid, sink, sandbox },
        abort: new AbortController(),
        created: Promise.resolve(),
        container: undefined,
      };
      this.#tasks.add(task);
      const { role, stdio: streams, messageFile, rootfs = "node", volumes = [] } = record.container;
      const facts = { id, role, stdio: streams, messageFile, rootfs, volumes, ...this.#reporting(task) };
      task.container = sandbox.restoreContainer(facts, record.container, expected);
    }
  }

  /** Dead-shim clean-up: containerd reports the end itself, so no event goes out. */
  async cleanup(address: string, namespace: string, id: string, call: Call): Promise<CleanupResult> {
    const { pods } = this.#deps;
    const bounded = withDeadline(CLEANUP_MS, call);
    const task = this.#tasks.find(address, namespace, id);
    let exit: Exit | undefined;
    if (task !== undefined) {
      task.abort.abort(new Fault("cancelled", `containerd asked to clean up task ${id}`));
      await waitFor([task.created], bounded);
      exit = await this.#cleanupTask(task, bounded);
    }
    await waitFor([this.#deps.apiPods.cleanup(address, namespace, id)], bounded);
    await waitFor([pods.releaseLeft(address, namespace, id)], bounded);
    const pid = task?.pid ?? this.#deps.pid();
    return { pid, exitStatus: exit?.status ?? 128 + 9, exitedAt: exit?.at ?? new Date() };
  }

  async #cleanupTask(task: Task, call: Call): Promise<Exit | undefined> {
    const { container, sandbox } = task;
    if (container === undefined || sandbox === undefined) {
      this.#tasks.remove(task);
      return undefined;
    }
    container.silence();
    if (container.isSandbox) void sandbox.stop("containerd asked to clean it up");
    const exit = await container.delete(call).catch((err: unknown) => {
      this.#deps.log.warn({ err, container: container.id }, "container not cleaned up in its guest");
      return container.init.exit;
    });
    await this.#forget(task, container);
    if (container.isSandbox) await waitFor([sandbox.stop("containerd asked to clean it up")], call);
    return exit;
  }

  async #create(task: Task, request: CreateTaskRequest, call: Call): Promise<void> {
    const { pods, config } = this.#deps;
    const overrides = await this.#deps.runtimeOptions.read(request.options);
    task.sink = (await readBundleFile(request.bundle)).ttrpcAddress;
    const reporting = this.#reporting(task);
    const wanted = {
      id: request.id,
      bundle: request.bundle,
      rootfs: request.rootfs,
      stdio: stdioOf(request),
      overrides,
      ...reporting,
    };
    const prepared = await prepareContainer(
      wanted,
      {
        ...{ maxMiB: config.maxCopyMiB, hostPaths: config.hostPaths, files: pods.files, rootfs: config.rootfs },
        volumes: (podUid) => cloudVolumes(config.directVolumesDir, podUid, this.#deps.log),
        gate: this.#deps.gate,
        extras: (podId) => this.#deps.apiPods.find(task.address, task.namespace, podId)?.extras,
      },
      call,
    );
    if (prepared.role.containerType === "pod_container") {
      task.sandbox = this.#podOf(task, prepared.role.sandboxContainerId);
      await this.#save(task); // the guest is asked from here on
      task.container = await task.sandbox.createContainer(prepared, call);
    } else {
      const sandbox = this.#newPod(task, prepared);
      try {
        await sandbox.boot(await podRequest(prepared, pods.files), call);
        task.sandbox = sandbox;
        task.container = await sandbox.createContainer(prepared, call);
      } catch (error) {
        void sandbox.stop("its container could not be created").then(() => pods.settle(sandbox));
        throw error;
      }
    }
    await reporting.emit({ kind: "create", bundle: wanted.bundle, rootfs: wanted.rootfs, stdio: wanted.stdio });
    // After the event: a daemon that finds the container created need not report it.
    await this.#save(task);
  }

  #newPod(task: Task, { role, overrides, spec }: PreparedContainer): PodSandbox {
    const { address, namespace, id, bundle } = task;
    const kind = role.containerType === "pod_sandbox" ? "pod_sandbox" : "single_container";
    const { pods } = this.#deps;
    const netnsPath = networkNamespacePath(spec);
    return pods.add({
      ...{ address, namespace, id, bundle, kind, netnsPath },
      ...{ pod: role.pod, hypervisor: overrides.hypervisor },
    });
  }

  /** @throws Fault not_found */
  #podOf({ id, address, namespace }: Task, podId: string): PodSandbox {
    const first = this.#tasks.find(address, namespace, podId);
    const api = this.#deps.apiPods.find(address, namespace, podId);
    const sandbox = first?.container === undefined ? api?.sandbox : first.sandbox;
    if (sandbox !== undefined) return sandbox;
    throw new Fault("not_found", `the pod of container ${id}, ${podId}, does not run here`);
  }

  #reporting(task: Task): Pick<ContainerFacts, "emit" | "save"> {
    return {
      emit: (event) => {
        const { sink, namespace, id, pid } = task;
        return this.#deps.publisher.publish({ sink, namespace, containerId: id, pid }, event);
      },
      // What is not in the table yet (being created) or any more (deleted) is not written by its processes.
      save: async () => {
        if (task.container !== undefined) await this.#save(task);
      },
    };
  }

  async #save(task: Task): Promise<void> {
    const { address, namespace, id } = task;
    const snapshot = () => (this.#tasks.find(address, namespace, id) === task ? recordOf(task) : undefined);
    await this.#deps.records.write(task, snapshot).catch((err: unknown) => {
      this.#deps.log.error({ err, container: id }, "record of a task not written: a crash now would lose it");
    });
  }

  async #forget(task: Task, container: Container): Promise<void> {
    this.#tasks.remove(task);
    await this.#deps.records.remove(task);
    task.sandbox?.forget(container);
    if (task.sandbox !== undefined) void this.#deps.pods.settle(task.sandbox);
  }

  #task(id: string, caller: TaskCaller): Task {
    return this.#tasks.get(caller.address, caller.namespace, id);
  }

  #container(id: string, caller: TaskCaller): Container {
    return this.#tasks.container(caller.address, caller.namespace, id);
  }
}

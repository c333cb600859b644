import { Fault } from "../../base/fault.ts";
import type { Container, PodSandbox } from "../sandbox/index.ts";
import type { TaskRecord } from "./task-record.ts";

/** One task of one containerd: being created, or with its container. */
export interface Task {
  readonly address: string;
  readonly namespace: string;
  readonly id: string;
  readonly bundle: string;
  /** TaskRequest.key of its Create. */
  readonly createKey: string;
  /** What containerd was told. */
  readonly pid: number;
  /** Path of containerd's event socket. */
  sink: string;
  /** Ends the creation. */
  readonly abort: AbortController;
  readonly created: Promise<void>;
  sandbox: PodSandbox | undefined;
  container: Container | undefined;
}

/** All tasks, by containerd address, namespace and id; equal ids elsewhere are other tasks. */
export class TaskTable {
  readonly #tasks = new Map<string, Task>();

  /** @throws Fault already_exists */
  add(task: Task): void {
    const key = containerKey(task.address, task.namespace, task.id);
    if (this.#tasks.has(key)) {
      throw new Fault(
        "already_exists",
        `task ${task.id} exists already in namespace ${task.namespace}; delete it or choose another id`,
        { container: task.id },
      );
    }
    this.#tasks.set(key, task);
  }

  find(address: string, namespace: string, id: string): Task | undefined {
    return this.#tasks.get(containerKey(address, namespace, id));
  }

  /** Only this task, not one that took its place. */
  remove(task: Task): void {
    const key = containerKey(task.address, task.namespace, task.id);
    if (this.#tasks.get(key) === task) this.#tasks.delete(key);
  }

  /** @throws Fault not_found */
  get(address: string, namespace: string, id: string): Task {
    const task = this.find(address, namespace, id);
    if (task === undefined)
      throw new Fault("not_found", `there is no task ${id} in namespace ${namespace}`, { container: id });
    return task;
  }

  /** @throws Fault not_found | failed_precondition while it is being created */
  container(address: string, namespace: string, id: string): Container {
    const task = this.get(address, namespace, id);
    if (task.container === undefined)
      throw new Fault("failed_precondition", `task ${id} is still being created`, { container: id });
    return task.container;
  }
}

/** What the next daemon needs of it. */
export function recordOf(task: Task): TaskRecord {
  const { address, namespace, id, bundle, createKey, pid, sink, sandbox, container } = task;
  return {
    version: 1,
    ...{ address, namespace, id, bundle, createKey, pid, sink, sandboxId: sandbox?.id ?? "" },
    ...(container === undefined ? {} : { container: container.record }),
  };
}

/** What names a task, or a pod of the Sandbox API, within this daemon. */
export function containerKey(address: string, namespace: string, id: string): string {
  return `${address}\0${namespace}\0${id}`;
}

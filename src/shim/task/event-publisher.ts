import { join } from "node:path";
import { withDeadline } from "../../base/call.ts";
import type { Logger } from "../../base/log.ts";
import {
  TaskCreate,
  TaskDelete,
  TaskExecAdded,
  TaskExecStarted,
  TaskExit,
  TaskOOM,
  TaskPaused,
  TaskResumed,
  TaskStart,
} from "../../gen/containerd/events/task.ts";
import type { Codec } from "../../ttrpc/index.ts";
import type { ContainerEvent } from "../sandbox/index.ts";
import { EventJournal } from "./event-journal.ts";
import { EventQueue } from "./event-queue.ts";
import { timestamp } from "./timestamp.ts";

/** Whose event it is. */
export interface EventSubject {
  /** Path of containerd's event socket, "" = none. */
  readonly sink: string;
  readonly namespace: string;
  readonly containerId: string;
  readonly pid: number;
}

interface Message {
  readonly topic: string;
  readonly type: string;
  readonly value: Uint8Array;
}

/** Turns what happens to containers into containerd's events. Each containerd has a queue of its own: order holds per queue. */
export class EventPublisher {
  readonly #log: Logger;
  readonly #now: () => Date;
  readonly #dir: string;
  readonly #queues = new Map<string, EventQueue>();

  constructor(deps: { readonly runDir: string; readonly log: Logger; readonly now: () => Date }) {
    this.#dir = join(deps.runDir, "events");
    this.#log = deps.log;
    this.#now = deps.now;
  }

  /** Takes up what an earlier daemon did not deliver. Before the first publish. */
  async restore(): Promise<void> {
    for (const sink of await EventJournal.sinks(this.#dir)) await this.#queue(sink).restore();
  }

  /** Resolves when the event is safe from this process's end. */
  async publish(subject: EventSubject, event: ContainerEvent): Promise<void> {
    const { topic, type, value } = message(subject, event);
    this.#log.debug({ container: subject.containerId, namespace: subject.namespace, topic }, "task event");
    if (subject.sink === "") return;
    await this.#queue(subject.sink).push({
      timestamp: timestamp(this.#now()),
      namespace: subject.namespace,
      topic,
      event: { typeUrl: `containerd.events.${type}`, value: Buffer.from(value) },
    });
  }

  #queue(sink: string): EventQueue {
    let queue = this.#queues.get(sink);
    if (queue === undefined) {
      queue = new EventQueue(new EventJournal(this.#dir, sink, this.#log), this.#log);
      this.#queues.set(sink, queue);
    }
    return queue;
  }

  /** Waits for what is queued, at most `ms`, then closes. */
  async close(ms: number): Promise<void> {
    await Promise.all([...this.#queues.values()].map((q) => q.flush(withDeadline(ms))));
    for (const queue of this.#queues.values()) queue.close();
  }
}

/** Source: containerd api/events/task.proto; reference §1.11 (topics). */
function message({ containerId, pid }: EventSubject, event: ContainerEvent): Message {
  switch (event.kind) {
    case "create": {
      const { bundle, stdio } = event;
      const rootfs = event.rootfs.map(({ type, source, target, options }) => ({
        type,
        source,
        target,
        options: [...options],
      }));
      return encode("/tasks/create", "TaskCreate", TaskCreate, {
        containerId,
        bundle,
        rootfs,
        io: { ...stdio },
        checkpoint: "",
        pid,
      });
    }
    case "start":
      return encode("/tasks/start", "TaskStart", TaskStart, { containerId, pid });
    case "exit": {
      const id = event.processId === "" ? containerId : event.processId;
      return encode("/tasks/exit", "TaskExit", TaskExit, {
        containerId,
        id,
        pid,
        exitStatus: event.status,
        exitedAt: timestamp(event.at),
      });
    }
    case "delete":
      return encode("/tasks/delete", "TaskDelete", TaskDelete, {
        containerId,
        pid,
        exitStatus: event.status,
        exitedAt: timestamp(event.at),
        id: "",
      });
    case "exec-added":
      return encode("/tasks/exec-added", "TaskExecAdded", TaskExecAdded, { containerId, execId: event.execId });
    case "exec-started":
      return encode("/tasks/exec-started", "TaskExecStarted", TaskExecStarted, {
        containerId,
        execId: event.execId,
        pid,
      });
    case "oom":
      return encode("/tasks/oom", "TaskOOM", TaskOOM, { containerId });
    case "paused":
      return encode("/tasks/paused", "TaskPaused", TaskPaused, { containerId });
    case "resumed":
      return encode("/tasks/resumed", "TaskResumed", TaskResumed, { containerId });
  }
}

function encode<T>(topic: string, type: string, codec: Codec<T>, value: T): Message {
  return { topic, type, value: codec.encode(value).finish() };
}

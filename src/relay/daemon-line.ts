import type { Socket } from "node:net";
import type { Call } from "../base/call.ts";
import { type Deferred, deferred } from "../base/deferred.ts";
import { Fault } from "../base/fault.ts";
import type { Logger } from "../base/log.ts";
import { race } from "../base/retry.ts";
import { OwnerDefinition } from "../gen/kataremote/relay/v1/relay.ts";
import { createClient, StatusError, TtrpcClient } from "../ttrpc/index.ts";
import type { TaskReply, TaskRequest } from "./relay.ts";
import { Meta } from "./wire.ts";

export interface DaemonLineDeps {
  readonly log: Logger;
  /** A Task call has its answer, or nobody waits for it any more. */
  readonly onAnswered: (taskKey: string) => void;
  readonly onAttached: () => void;
  /** The daemon's connection is gone. */
  readonly onDetached: () => void;
}

/**
 * The relay's calls of the node daemon. While there is none, or when it dies before it has answered, a Task call waits
 * for the next daemon, as long as containerd does, and is delivered to it under the same key.
 */
export class DaemonLine {
  readonly #deps: DaemonLineDeps;
  readonly #pending = new Set<string>();
  #current: TtrpcClient | undefined;
  #next: Deferred<TtrpcClient> = deferred();

  constructor(deps: DaemonLineDeps) {
    this.#deps = deps;
  }

  /** Keys of Task calls without an answer. */
  get pending(): ReadonlySet<string> {
    return this.#pending;
  }

  /** A daemon is there. It holds the run directory's lock: an earlier one is dead, whether or not we saw that. */
  attach(socket: Socket): void {
    const client = new TtrpcClient(socket);
    const before = this.#current;
    if (before !== undefined) this.#next = deferred();
    this.#current = client;
    before?.close();
    this.#deps.onAttached();
    this.#next.resolve(client);
    void client.closed.then(() => {
      this.#drop(client);
    });
  }

  /** Never rejects but with what ended the call. */
  async answer(request: TaskRequest, call: Call): Promise<TaskReply> {
    const { key, door, connection, service, method, payload, timeoutMs } = request;
    const metadata = [
      ...request.metadata,
      [Meta.door, door] as const,
      [Meta.connection, String(connection)] as const,
      [Meta.task, key] as const,
    ];
    const end = timeoutMs === undefined ? undefined : performance.now() + timeoutMs;
    this.#pending.add(key);
    try {
      for (;;) {
        const client = await race(this.#next.promise, call);
        const left = end === undefined ? {} : { timeoutMs: Math.max(1, Math.ceil(end - performance.now())) };
        try {
          const reply = await client.call(service, method, payload, { signal: call.signal, metadata, ...left });
          return { ok: true, payload: reply };
        } catch (e) {
          if (e instanceof StatusError) return { ok: false, code: e.code, message: e.message };
          if (call.signal.aborted) {
            void createClient(OwnerDefinition, client)
              .cancel({ key })
              .catch(() => undefined); // it died: nothing to stop
            throw e;
          }
          this.#deps.log.info(
            { method, key },
            "the node daemon went before it answered: the call waits for the next one",
          );
          this.#drop(client);
        }
      }
    } finally {
      this.#pending.delete(key);
      this.#deps.onAnswered(key);
    }
  }

  async sign(
    sandboxId: string,
    csrPem: string,
    call: Call,
  ): Promise<{ readonly certificatePem: string; readonly verifiedBy: string }> {
    const signed = await createClient(OwnerDefinition, this.#daemon()).sign(
      { sandboxId, csrPem },
      { signal: call.signal },
    );
    return { certificatePem: signed.certificatePem, verifiedBy: signed.verifiedBy };
  }

  stage(sandboxId: string, stage: string): void {
    // Only a message for people gets better by it.
    if (this.#current === undefined) return;
    createClient(OwnerDefinition, this.#current)
      .stage({ sandboxId, stage })
      .catch((err: unknown) => this.#deps.log.debug({ err, sandbox: sandboxId }, "stage not told"));
  }

  close(): void {
    this.#current?.close();
  }

  #daemon(): TtrpcClient {
    if (this.#current === undefined)
      throw new Fault("unavailable", "there is no node daemon now", {}, { retryable: false });
    return this.#current;
  }

  #drop(client: TtrpcClient): void {
    if (this.#current !== client) return;
    this.#current = undefined;
    this.#next = deferred();
    this.#deps.onDetached();
  }
}

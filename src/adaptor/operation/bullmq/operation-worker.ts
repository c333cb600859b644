import { type Job, Worker, type WorkerOptions } from "bullmq";
import { backoffMs, sleep } from "../../../base/retry.ts";
import type { JobData } from "./operation-jobs.ts";

export interface OperationWorkerDeps {
  readonly kind: string;
  readonly options: WorkerOptions;
  readonly work: (job: Job<JobData>, token: string | undefined) => Promise<void>;
  /** Told of what passes by itself. */
  readonly onError: (error: Error) => void;
}

const RETRY_MS = 100;
const RETRY_MAX_MS = 2_000;

/**
 * Takes jobs of one kind. A worker of BullMQ's makes a connection to wait on. When Redis goes away while that is being
 * made, it fails once and for all, though the connection is made again: the worker takes the jobs that are there, and
 * then waits for ever and says nothing. So one that did not get ready is replaced.
 * Source: bullmq 6.7, RedisConnection.init, whose promise `reconnect` and `waitForJob` await.
 */
export class OperationWorker {
  readonly #deps: OperationWorkerDeps;
  readonly #closing = new AbortController();
  #worker: Worker<JobData>;
  #ready = false;

  constructor(deps: OperationWorkerDeps) {
    this.#deps = deps;
    this.#worker = this.#make();
  }

  /** Until it is closed. @throws what ended it */
  async run(): Promise<void> {
    for (let failures = 0; !this.#closing.signal.aborted; failures++) {
      const worker = this.#worker;
      this.#ready = await this.#becomesReady(worker);
      if (this.#closing.signal.aborted) return;
      if (this.#ready) return worker.run();
      this.#worker = this.#make();
      void worker.close(true).catch(this.#deps.onError); // it has taken no job
      const pause = sleep(backoffMs(failures, RETRY_MS, RETRY_MAX_MS), { signal: this.#closing.signal });
      await pause.catch(() => undefined); // the end is seen above
    }
  }

  /** Takes no more jobs. */
  pause(): void {
    this.#closing.abort();
    void this.#worker.pause(true).catch(this.#deps.onError);
  }

  /** Waits for the jobs that it has, and for Redis when that is away. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#worker.close(!this.#ready);
  }

  /** Without waiting for the connection's end, which one that is just being made again never tells. */
  disconnect(): void {
    if (this.#ready) void this.#worker.getBackend().disconnectBlocking(false).catch(this.#deps.onError);
  }

  async #becomesReady(worker: Worker<JobData>): Promise<boolean> {
    try {
      await worker.waitUntilReady();
      return true;
    } catch (e) {
      this.#deps.onError(e instanceof Error ? e : new Error(String(e)));
      return false;
    }
  }

  #make(): Worker<JobData> {
    const { kind, options, work, onError } = this.#deps;
    return new Worker<JobData>(kind, work, options).on("error", onError);
  }
}

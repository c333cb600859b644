import { DelayedError, type Job } from "bullmq";
import { type Call, withDeadline } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { newOperationId, type OperationId } from "../../../base/ids.ts";
import { race, sleep } from "../../../base/retry.ts";
import type { NewOperation, OperationRecord } from "../../store/index.ts";
import type { RedisClient, RedisTarget } from "../../store/redis/index.ts";
import { cancelOperation } from "../cancel-operation.ts";
import type { HandlerLimits, OperationHandler, OperationKind, OperationQueue, Submission } from "../operation-queue.ts";
import { type Kind, OperationRuns, type OperationRunsDeps } from "../operation-runs.ts";
import { waitUntilOver } from "../wait-until-over.ts";
import { type JobData, OperationJobs } from "./operation-jobs.ts";
import { OperationWorker } from "./operation-worker.ts";

export interface BullmqQueueDeps extends OperationRunsDeps {
  readonly target: RedisTarget;
  /** Of BullMQ's keys; `{…}` makes it one hash slot. */
  readonly prefix: string;
  /** Between sweeps, which give a job to operations without one, ms. */
  readonly sweepMs?: number;
}

const SWEEP_MS = 5_000;
/** An operation that waits for its subject looks again after this, ms; the end of the other one wakes it earlier. */
const BUSY_MS = 1_000;
const CLOSE_MS = 5_000;
/** After so many sweeps in a row that the store answers and the queue does not, its connection is made anew. */
const FAILED_SWEEPS = 3;
const CHUNK = 500;

/**
 * Operations moved by BullMQ, for any number of adaptors. Redis wakes, orders and spreads; whether an operation may
 * begin, whose it is, how often it is tried and how it ended is the store's. So the queue may lose, repeat or mix up
 * jobs: a sweep, at the start and periodically, makes good for it.
 */
export class BullmqQueue implements OperationQueue {
  readonly #deps: BullmqQueueDeps;
  readonly #runs: OperationRuns;
  readonly #kinds = new Map<string, Kind>();
  readonly #jobs = new Map<string, OperationJobs>();
  readonly #workers: OperationWorker[] = [];
  readonly #producer: RedisClient;
  readonly #consumer: RedisClient;
  #sweeping: Promise<void> = Promise.resolve();
  #lastSweep = 0;
  #failedSweeps = 0;

  constructor(deps: BullmqQueueDeps) {
    this.#deps = deps;
    this.#runs = new OperationRuns(deps);
    this.#producer = deps.target.client("bounded");
    this.#consumer = deps.target.client("patient");
    for (const client of [this.#producer, this.#consumer]) client.on("error", this.#onError);
  }

  handle(kind: OperationKind, handler: OperationHandler, limits: HandlerLimits): void {
    this.#kinds.set(kind, { handler, limits });
  }

  async start(): Promise<void> {
    const { prefix, log } = this.#deps;
    for (const kind of this.#kinds.keys()) {
      this.#jobs.set(kind, new OperationJobs(kind, { connection: this.#producer, prefix }, this.#onError));
    }
    await this.#sweep(true);
    for (const [kind, { limits }] of this.#kinds) {
      const worker = new OperationWorker({
        kind,
        options: {
          connection: this.#consumer,
          prefix,
          concurrency: limits.concurrency,
          autorun: false,
          // A worker that died mid-job is found by its lock; that is no failure, the store counts attempts.
          maxStalledCount: Number.MAX_SAFE_INTEGER,
        },
        work: (job, token) => this.#work(job, token),
        onError: this.#onError,
      });
      void worker.run().catch((e: unknown) => log.error({ kind, err: e }, "a worker of the queue ended"));
      this.#workers.push(worker);
    }
    this.#sweeping = this.#sweepOnAndOn();
  }

  async submit<K extends OperationKind>(submission: Submission<K>): Promise<OperationRecord> {
    const { kind, subject, id = newOperationId(), priority = this.#kindOf(kind).limits.priority } = submission;
    const input = submission.input as NewOperation["input"];
    const operation = await this.#deps.store.submit({ id, kind, subject, input, priority });
    // It is durable; should its job not be, the sweep makes one.
    if (operation.state === "queued") void this.#tellQueue(() => this.#jobsOf(kind)?.add(operation));
    return operation;
  }

  wait(id: OperationId, call: Call): Promise<OperationRecord> {
    return waitUntilOver(this.#deps.store, id, call);
  }

  cancel(id: OperationId, reason: string): Promise<boolean> {
    return cancelOperation(this.#deps, id, reason);
  }

  /** Interrupts what runs here; another adaptor or the next start takes it up. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const worker of this.#workers) worker.pause();
    await this.#runs[Symbol.asyncDispose]();
    await this.#sweeping;
    const closing = [...this.#workers.map((w) => w.close()), ...[...this.#jobs.values()].map((j) => j.close())];
    // With Redis away they would wait for it; nothing that matters is left to be said.
    await race(Promise.allSettled(closing), withDeadline(CLOSE_MS)).catch(() => {
      this.#deps.log.warn({}, "redis is away: the queue is left without a farewell");
    });
    for (const worker of this.#workers) worker.disconnect();
    this.#producer.disconnect();
    this.#consumer.disconnect();
  }

  readonly #onError = (err: Error): void => {
    if (!this.#runs.closing.aborted) this.#deps.log.debug({ err }, "queue in redis");
  };

  #kindOf(kind: string): Kind {
    const known = this.#kinds.get(kind);
    if (known === undefined) throw new Fault("internal", `nothing handles operations of kind ${kind}`);
    return known;
  }

  #jobsOf(kind: string): OperationJobs | undefined {
    return this.#jobs.get(kind); // none before start(), whose sweep finds what was submitted
  }

  async #tellQueue(work: () => Promise<void> | undefined): Promise<void> {
    try {
      await work();
    } catch (e) {
      this.#deps.log.warn({ err: e }, "an operation could not be put into the queue; the next sweep does it");
    }
  }

  /** One job: begin the operation if it is its turn, run it, and have the queue do what the store says of it then. */
  async #work(job: Job<JobData>, token: string | undefined): Promise<void> {
    const { store } = this.#deps;
    const id = job.data.operation;
    if (this.#runs.has(id)) return; // a job that was given out twice
    if (this.#runs.closing.aborted) return this.#later(job, token, Date.now() + BUSY_MS); // for another adaptor
    const operation = await store.begin(id);
    if (operation === undefined) {
      const current = await store.get(id);
      // Over: nothing to do. Running: should its worker be dead, the sweep brings it back.
      if (current?.state !== "queued") return;
      return this.#later(job, token, Math.max(current.wakeAt, Date.now() + BUSY_MS));
    }
    const after = await this.#runs.run(operation, this.#kindOf(operation.kind));
    if (!this.#runs.closing.aborted) void this.#tellQueue(() => this.#wakeSubject(operation.subject));
    if (after?.state === "queued") await this.#jobsOf(after.kind)?.add(after);
  }

  /** @throws DelayedError, which tells BullMQ so */
  async #later(job: Job<JobData>, token: string | undefined, at: number): Promise<never> {
    await job.moveToDelayed(at, token);
    throw new DelayedError();
  }

  /** The subject is free: what waited for it may begin. */
  async #wakeSubject(subject: string): Promise<void> {
    const waiting = await this.#deps.store.list({ subject, states: ["queued"] });
    const due = waiting.filter((o) => o.wakeAt <= Date.now()).sort((a, b) => a.priority - b.priority);
    for (const operation of due) await this.#jobsOf(operation.kind)?.wake(operation);
  }

  async #sweepOnAndOn(): Promise<void> {
    const call = { signal: this.#runs.closing };
    while (!call.signal.aborted) {
      await sleep(this.#deps.sweepMs ?? SWEEP_MS, call).catch(() => undefined); // the end is seen here
      if (call.signal.aborted) return;
      await this.#sweep(false).catch((e: unknown) => {
        this.#deps.log.warn({ err: e }, "operations cannot be compared with the queue, the next sweep follows");
      });
    }
  }

  /** Takes up what nobody works on, and gives a job to every operation that should have had its turn and has none. */
  async #sweep(all: boolean): Promise<void> {
    const { store, log, sweepMs = SWEEP_MS } = this.#deps;
    const now = Date.now();
    const queued = await store.list({ states: ["queued"] }); // fails first of all when Redis is away
    // After an outage leases look old though their holders live: they get the time to renew them.
    const steady = all || now - this.#lastSweep < 3 * sweepMs;
    this.#lastSweep = now;
    const resumed = steady ? await store.requeueAbandoned() : 0;
    if (resumed > 0) log.info({ resumed }, "operations taken up again");
    const candidates = resumed > 0 ? await store.list({ states: ["queued"] }) : queued;
    const overdue = candidates
      .filter((o) => all || resumed > 0 || o.wakeAt < now - sweepMs)
      .sort((a, b) => a.wakeAt - b.wakeAt);
    try {
      for (let at = 0; at < overdue.length && !this.#runs.closing.aborted; at += CHUNK) {
        await this.#addMissing(overdue.slice(at, at + CHUNK));
      }
      this.#failedSweeps = 0;
    } catch (e) {
      this.#failedSweeps++;
      if (this.#failedSweeps % FAILED_SWEEPS === 0 && !this.#runs.closing.aborted) {
        log.warn({ err: e, sweeps: this.#failedSweeps }, "the queue does not answer: its connection is made anew");
        this.#producer.disconnect(true);
      }
      throw e;
    }
  }

  async #addMissing(operations: readonly OperationRecord[]): Promise<void> {
    for (const [kind, jobs] of this.#jobs) {
      const added = await jobs.addMissing(operations.filter((o) => o.kind === kind));
      if (added > 0) this.#deps.log.info({ kind, operations: added }, "operations without a job got one");
    }
  }
}

import { Queue, type QueueOptions } from "bullmq";
import type { OperationId } from "../../../base/ids.ts";
import type { OperationRecord } from "../../store/index.ts";

/** All that a job carries beside its name (the kind), priority and wake-up time. */
export interface JobData {
  readonly operation: OperationId;
}

/** BullMQ's highest number; 0 goes before all others. Source: bullmq PRIORITY_LIMIT, 2^21. */
const LOWEST_PRIORITY = 2 ** 21;

/**
 * The jobs that move operations of one kind. A job is a wake-up call and holds no truth: it may be lost (a sweep makes
 * it again) or be there twice (the store lets one begin). BullMQ ignores a job whose id exists in any state, also in
 * the hands of a worker that is dead. So a job is removed when it ends, and its id grows with the operation's lease:
 * what was taken from a dead worker gets a job of its own at once.
 */
export class OperationJobs {
  readonly #make: () => Queue<JobData>;
  #queue: Queue<JobData>;

  constructor(kind: string, options: QueueOptions, onError: (error: Error) => void) {
    this.#make = () => new Queue<JobData>(kind, options).on("error", onError);
    this.#queue = this.#make();
  }

  /**
   * A queue of BullMQ's begins with a question to Redis. When that one fails, because Redis goes away at that moment, the
   * queue answers everything with its failure for ever, though the connection is made again: a new one takes its place.
   * Source: bullmq 6.7 RedisConnection.init, whose promise is what `client` gives.
   */
  async #ready(): Promise<Queue<JobData>> {
    const queue = this.#queue;
    try {
      await queue.waitUntilReady();
      return queue;
    } catch (e) {
      if (this.#queue === queue) this.#queue = this.#make();
      // The connection is shared and stays.
      void queue.close().catch(() => undefined); // it never was ready: nothing is lost with it
      throw e;
    }
  }

  /** Has the operation looked at when it is due. Nothing happens when it has a job. */
  async add(operation: OperationRecord, jobId = jobIdOf(operation)): Promise<void> {
    const { id, kind, priority, wakeAt } = operation;
    const queue = await this.#ready();
    await queue.add(
      kind,
      { operation: id },
      {
        jobId,
        priority: Math.min(Math.max(0, priority), LOWEST_PRIORITY),
        delay: Math.max(0, wakeAt - Date.now()),
        // The operation's record is what remembers; how often it is tried is decided there too.
        removeOnComplete: true,
        removeOnFail: true,
        attempts: 1,
      },
    );
  }

  /** Has it looked at now, though its job says later. */
  async wake(operation: OperationRecord): Promise<void> {
    await this.add(operation);
    const job = await (await this.#ready()).getJob(jobIdOf(operation));
    if ((await job?.isDelayed()) === true) await job?.promote();
  }

  /**
   * Gives a job to those queued operations that have none, or whose job is in a worker's hands though the operation is
   * not begun: that worker died between the two.
   * @returns how many
   */
  async addMissing(operations: readonly OperationRecord[]): Promise<number> {
    const queue = await this.#ready();
    const added = await Promise.all(
      operations.map(async (operation) => {
        const jobId = jobIdOf(operation);
        const job = await queue.getJob(jobId);
        if (job === undefined) await this.add(operation);
        else if (await job.isActive()) await this.add(operation, `${jobId}-${Date.now()}`);
        else return 0;
        return 1;
      }),
    );
    return added.reduce<number>((sum, n) => sum + n, 0);
  }

  async close(): Promise<void> {
    await this.#queue.close();
  }
}

/** Neither all digits nor with a colon, which BullMQ refuses. */
function jobIdOf({ id, lease }: OperationRecord): string {
  return `${id}-${lease}`;
}

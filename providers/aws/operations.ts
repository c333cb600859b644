import type { InstanceId } from "../../src/base/ids.ts";
import { Mutex } from "../../src/base/mutex.ts";
import type { OwnerTags } from "../../src/provider/index.ts";

/** What is known of one create operation. */
export interface Operation {
  readonly lock: Mutex;
  /** When it was last looked at, ms. */
  usedAt: number;
  /** Whether another process may have worked on it since: what it made has to be searched for first. */
  search: boolean;
  instanceId?: InstanceId;
}

const KEEP_MS = 3_600_000;
const MAX_KEPT = 10_000;
/** Another process takes an operation over this long after its last sign of life at the earliest, ms. */
const TAKEN_OVER_MS = 10_000;

/** The create operations that this process has seen. Nothing depends on them being remembered: EC2's tokens and tags do. */
export class Operations {
  readonly #now: () => Date;
  readonly #startedAt: number;
  readonly #operations = new Map<string, Operation>();

  constructor(deps: { readonly now: () => Date }) {
    this.#now = deps.now;
    this.#startedAt = deps.now().getTime();
  }

  /** @param tags `created` says when the operation was first meant to be done */
  get({ createOperation, created }: OwnerTags): Operation {
    const now = this.#now().getTime();
    const known = this.#operations.get(createOperation);
    const operation = known ?? { lock: new Mutex(), usedAt: now, search: false };
    // An intent of this process's own time that is young, or that it had in its hands a moment ago, is nobody else's.
    // Written so that an unreadable time counts as old.
    const since = known === undefined ? Date.parse(created) : operation.usedAt;
    const own = (known !== undefined || since >= this.#startedAt) && now - since < TAKEN_OVER_MS;
    if (!own) operation.search = true;
    operation.usedAt = now;
    this.#operations.delete(createOperation); // to the end: the oldest come first
    this.#operations.set(createOperation, operation);
    for (const [key, { usedAt }] of this.#operations) {
      if (this.#operations.size <= MAX_KEPT && now - usedAt < KEEP_MS) break;
      this.#operations.delete(key);
    }
    return operation;
  }
}

import type { Clock } from "../../src/base/clock.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { Instance } from "../../src/provider/index.ts";

/** How long Azure's reads may lag behind what it has accepted, ms. */
const SETTLE_MS = 60_000;

interface Created {
  readonly instance: Instance;
  readonly at: number;
  /** Whether a read has shown it. */
  readonly shown: boolean;
}

/**
 * What this process has just created and deleted. Azure Resource Manager answers from caches in several regions: for some
 * seconds a read does not show a new VM, or still shows one that is gone. "Not found" then means "unknown", not "gone".
 */
export class Recent {
  readonly #clock: Clock;
  readonly #created = new Map<InstanceId, Created>();
  readonly #deleted = new Map<InstanceId, number>();

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  noteCreated(instance: Instance): void {
    this.#forget();
    if (!this.#created.has(instance.id)) this.#created.set(instance.id, { instance, at: this.#now(), shown: false });
  }

  /** One read has shown it: a young one that another read does not show yet is not gone. */
  noteSeen(instance: Instance): void {
    const known = this.#created.get(instance.id);
    const at = known?.at ?? instance.createdAt.getTime();
    if (at < this.#now() - SETTLE_MS || instance.state === "deleting") return;
    this.#created.set(instance.id, { instance: known?.instance ?? instance, at, shown: true });
  }

  /** Gone for good, with all its parts. */
  noteDeleted(id: InstanceId): void {
    this.#forget();
    this.#created.delete(id);
    this.#deleted.delete(id); // to the end
    this.#deleted.set(id, this.#now());
  }

  /** As it was when it was made; undefined when it is old enough for Azure to know it. */
  created(id: InstanceId): Instance | undefined {
    this.#forget();
    return this.#created.get(id)?.instance;
  }

  /** Whether it was made so recently that no read has shown it yet. */
  isUnshown(id: InstanceId): boolean {
    this.#forget();
    return this.#created.get(id)?.shown === false;
  }

  /**
   * @param shown What a read shows under that name. One that was made after the end is another VM: a create request whose
   * sender stood still had its effect late, and nothing else would remove what it made.
   */
  isDeleted(id: InstanceId, shown?: Instance): boolean {
    this.#forget();
    const at = this.#deleted.get(id);
    if (at === undefined) return false;
    if (shown === undefined || shown.createdAt.getTime() <= at) return true;
    this.#deleted.delete(id);
    return false;
  }

  /** Its end has been asked for, perhaps with effect: that it is not shown is no riddle any more. */
  noteEnding(id: InstanceId): void {
    this.#created.delete(id);
  }

  /** The new ones that a listing of their cluster lacks. */
  missingFrom(listed: readonly Instance[], cluster: string): readonly Instance[] {
    this.#forget();
    const shown = new Set(listed.map((i) => i.id));
    const created = [...this.#created.values()].map((c) => c.instance);
    return created.filter((i) => i.tags.cluster === cluster && !shown.has(i.id));
  }

  #now(): number {
    return this.#clock.now().getTime();
  }

  #forget(): void {
    const old = this.#now() - SETTLE_MS;
    for (const [id, { at }] of this.#created) if (at < old) this.#created.delete(id);
    // The oldest come first: with thousands of them only those that go are looked at.
    for (const [id, at] of this.#deleted) {
      if (at >= old) break;
      this.#deleted.delete(id);
    }
  }
}

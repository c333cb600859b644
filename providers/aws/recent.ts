import type { InstanceId } from "../../src/base/ids.ts";
import type { Instance } from "../../src/provider/index.ts";

/** How long EC2's listings may lag behind what it has accepted, ms. */
export const SETTLE_MS = 60_000;

/**
 * What this process has just created and deleted. EC2 is eventually consistent: for some seconds a describe does not
 * show a new instance, or still shows one that was ended. "Not found" then means "unknown", not "gone".
 */
export class Recent {
  readonly #now: () => Date;
  readonly #created = new Map<InstanceId, { readonly instance: Instance; readonly at: number }>();
  readonly #deleted = new Map<InstanceId, number>();

  constructor(deps: { readonly now: () => Date }) {
    this.#now = deps.now;
  }

  noteCreated(instance: Instance): void {
    this.#forget();
    if (!this.#created.has(instance.id)) this.#created.set(instance.id, { instance, at: this.#now().getTime() });
  }

  noteDeleted(id: InstanceId): void {
    this.#forget();
    this.#created.delete(id);
    this.#deleted.delete(id); // to the end
    this.#deleted.set(id, this.#now().getTime());
  }

  /** As it was when it was made; undefined when it is old enough for EC2 to know it. */
  created(id: InstanceId): Instance | undefined {
    this.#forget();
    return this.#created.get(id)?.instance;
  }

  isDeleted(id: InstanceId): boolean {
    this.#forget();
    return this.#deleted.has(id);
  }

  /** The new ones that a listing of their cluster lacks. */
  missingFrom(listed: readonly Instance[], cluster: string): readonly Instance[] {
    this.#forget();
    const shown = new Set(listed.map((i) => i.id));
    return [...this.#created.values()]
      .map((c) => c.instance)
      .filter((i) => i.tags.cluster === cluster && !shown.has(i.id));
  }

  /** EC2 has said that it ended. */
  noteGone(id: InstanceId): void {
    this.#created.delete(id);
  }

  #forget(): void {
    const old = this.#now().getTime() - SETTLE_MS;
    // The oldest come first: with thousands of them only those that go are looked at.
    for (const [id, { at }] of this.#created) {
      if (at >= old) break;
      this.#created.delete(id);
    }
    for (const [id, at] of this.#deleted) {
      if (at >= old) break;
      this.#deleted.delete(id);
    }
  }
}

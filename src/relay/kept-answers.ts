/** First part of the keys of calls that no Task call asked for. */
const GUEST_SCOPE = "guest";

/**
 * Answers of guest calls whose daemon may die before it can use them, named as KEEP_KEY says. Whoever calls a sandbox's
 * guest under a known key gets the same answer, and the guest is not asked again. What is kept is bounded by what
 * containerd waits for: a few answers for each Task call in flight, one for each guest.
 */
export class KeptAnswers {
  readonly #isPending: (taskKey: string) => boolean;
  /** By scope (key of a Task call, or `guest`), then by sandbox and key. */
  readonly #scopes = new Map<string, Map<string, Promise<Uint8Array>>>();

  constructor(deps: { readonly isPending: (taskKey: string) => boolean }) {
    this.#isPending = deps.isPending;
  }

  /** Calls that are in progress or kept. */
  get size(): number {
    let size = 0;
    for (const scope of this.#scopes.values()) size += scope.size;
    return size;
  }

  /** @param gone says whether the daemon that asked has gone meanwhile */
  async run(sandboxId: string, key: string, work: () => Promise<Uint8Array>, gone: () => boolean): Promise<Uint8Array> {
    const [scopeName = ""] = key.split("/", 1);
    // A Task call that has its answer already: whatever is still done for it, nobody will ask again.
    if (scopeName !== GUEST_SCOPE && !this.#isPending(scopeName)) return work();
    const scope = this.#scopes.get(scopeName) ?? new Map<string, Promise<Uint8Array>>();
    this.#scopes.set(scopeName, scope);
    const name = `${sandboxId}/${key}`;
    const answer = scope.get(name) ?? work();
    answer.catch(() => undefined); // the daemon that asked may be gone; the next one sees the error
    scope.set(name, answer);
    try {
      return await answer;
    } finally {
      if (scopeName === GUEST_SCOPE && !gone() && scope.get(name) === answer) scope.delete(name);
    }
  }

  /** A Task call has its answer. */
  release(taskKey: string): void {
    this.#scopes.delete(taskKey);
  }

  /** A sandbox is gone. */
  forget(sandboxId: string): void {
    const scope = this.#scopes.get(GUEST_SCOPE);
    for (const name of scope?.keys() ?? []) if (name.startsWith(`${sandboxId}/`)) scope?.delete(name);
  }
}

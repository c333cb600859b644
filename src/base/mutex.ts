/** Runs functions one after another, in the order they came. One per thing that must not be changed by two at once. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work, work);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}

/** A Mutex for each of many things, by its key. One that nobody holds or waits for is forgotten. */
export class KeyedMutex<K = string> {
  readonly #used = new Map<K, { readonly mutex: Mutex; users: number }>();

  async run<T>(key: K, work: () => Promise<T>): Promise<T> {
    const used = this.#used.get(key) ?? { mutex: new Mutex(), users: 0 };
    this.#used.set(key, used);
    used.users++;
    try {
      return await used.mutex.run(work);
    } finally {
      used.users--;
      if (used.users === 0) this.#used.delete(key);
    }
  }
}

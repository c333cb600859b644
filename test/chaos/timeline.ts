/** What happened in a case, in the order it happened. */
export class Timeline {
  readonly #began = performance.now();
  readonly #lines: { readonly ms: number; readonly text: string }[] = [];
  readonly #listeners = new Set<(step: string) => void>();

  note(text: string): void {
    this.#lines.push({ ms: performance.now() - this.#began, text });
  }

  /** A step of a create or delete is reached. Listeners act before this returns: that is the moment of a fault. */
  step(name: string): void {
    this.note(`step ${name}`);
    for (const listener of [...this.#listeners]) listener(name);
  }

  /** @returns the function that ends it */
  onStep(listener: (step: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Number of lines now; with `since` the text of those that came later. */
  get length(): number {
    return this.#lines.length;
  }

  text(since = 0): string {
    return this.#lines
      .slice(since)
      .map(({ ms, text }) => `  ${(ms / 1000).toFixed(3).padStart(8)} s  ${text}`)
      .join("\n");
  }
}

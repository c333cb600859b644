import type { StageTiming } from "../shim-service.ts";

/** Measures how long each stage of a start takes. */
export class Stopwatch {
  readonly #clock: () => number;
  readonly #stages: StageTiming[] = [];
  #last: number;

  /** @param stages that were measured before */
  constructor(clock: () => number = () => performance.now(), stages: readonly StageTiming[] = []) {
    this.#stages.push(...stages);
    this.#clock = clock;
    this.#last = clock();
  }

  get stages(): readonly StageTiming[] {
    return this.#stages;
  }

  /** A stage has just been reached. */
  mark(stage: string): void {
    const now = this.#clock();
    this.#stages.push({ stage, ms: Math.round(now - this.#last) });
    this.#last = now;
  }
}

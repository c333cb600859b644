import type { Clock } from "../../src/base/clock.ts";

interface Timer {
  readonly at: number;
  readonly order: number;
  readonly work: () => void;
}

/** Turns of the event loop without a sign of life after which nothing but a timer can be waited for. */
const QUIET_TURNS = 12;
/** How long, in ms of real time, it is waited for what no timer brings. */
const PATIENCE = 5_000;

/**
 * Time that stands still while anything is being done, and jumps to the next timer when nothing is: minutes of waiting
 * cost nothing, and the order of things is that of a machine that takes no time to compute.
 */
export class VirtualClock implements Clock {
  /** Counts signs of life; whoever works without timers raises it. */
  activity = 0;
  #now: number;
  #order = 0;
  readonly #timers = new TimerHeap();

  constructor(start: Date) {
    this.#now = start.getTime();
  }

  now(): Date {
    return new Date(this.#now);
  }

  after(ms: number, work: () => void): () => void {
    this.activity++;
    const timer = { at: this.#now + Math.max(0, ms), order: this.#order++, work };
    this.#timers.push(timer);
    return () => this.#timers.cancel(timer);
  }

  /** Lets time pass until the work is done. @throws what it throws; Error when nothing is left that it could wait for */
  async run<T>(work: Promise<T>): Promise<T> {
    let over = false;
    const finished = work.finally(() => {
      over = true;
    });
    finished.catch(() => undefined); // whoever called sees it below
    for (let idle = 0; ; ) {
      await this.#quiet(() => over);
      if (over) return finished;
      const next = this.#timers.pop();
      if (next === undefined) {
        // Files are read and written in real time.
        if (++idle > PATIENCE) throw new Error("the simulation waits for something that no timer brings");
        await new Promise((resolve) => setTimeout(resolve, 1));
        continue;
      }
      idle = 0;
      this.#now = Math.max(this.#now, next.at);
      next.work();
    }
  }

  async #quiet(isOver: () => boolean): Promise<void> {
    for (let turns = 0, seen = this.activity; turns < QUIET_TURNS && !isOver(); turns++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (this.activity === seen) continue;
      seen = this.activity;
      turns = 0;
    }
  }
}

/** Timers by time, then by the order in which they were set. */
class TimerHeap {
  readonly #heap: Timer[] = [];
  readonly #cancelled = new Set<Timer>();

  push(timer: Timer): void {
    const heap = this.#heap;
    heap.push(timer);
    for (let at = heap.length - 1; at > 0; ) {
      const parent = (at - 1) >> 1;
      if (!isBefore(timer, heap[parent])) break;
      heap[at] = heap[parent] as Timer;
      heap[parent] = timer;
      at = parent;
    }
  }

  cancel(timer: Timer): void {
    this.#cancelled.add(timer);
  }

  pop(): Timer | undefined {
    for (;;) {
      const first = this.#take();
      if (first === undefined || !this.#cancelled.delete(first)) return first;
    }
  }

  #take(): Timer | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || first === last) return first;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const child = isBefore(heap[left + 1], heap[left]) ? left + 1 : left;
      const smallest = heap[child];
      if (smallest === undefined || !isBefore(smallest, last)) break;
      heap[at] = smallest;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Timer | undefined, b: Timer | undefined): boolean {
  if (a === undefined) return false;
  return b === undefined || a.at < b.at || (a.at === b.at && a.order < b.order);
}

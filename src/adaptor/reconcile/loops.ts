import { type Call, withDeadline } from "../../base/call.ts";
import { type Clock, realClock, sleepOn } from "../../base/clock.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { race } from "../../base/retry.ts";
import type { FactStore } from "../store/index.ts";
import type { Pass, Reconciler } from "./reconciler.ts";

/** Longest that one pass may take, ms: a provider that hangs must not end the loop for good. */
const PASS_TIMEOUT_MS = 120_000;
/** The lead in a loop is another adaptor's when it was not asked for in this time, ms; it is kept, and sought, so often. */
const LEAD_MS = 15_000;
const KEEP_MS = 5_000;
/** For giving the lead back at the end, ms. */
const RELEASE_MS = 1_000;
/**
 * The pause between two passes is at least this many times as long as a pass, within bounds: a pass that only waited (for
 * a cloud that hangs, for Redis) must not silence its loop.
 */
const PAUSES = 20;
const MAX_STRETCH_MS = 10_000;
const WATCH_MS = 500;

/** How a loop stands on this adaptor. */
export interface LoopStatus {
  readonly name: string;
  readonly intervalMs: number;
  /** Of the last pass that ran here; undefined before, or while another adaptor leads. */
  readonly last?: Pass & { readonly at: string; readonly tookMs: number; readonly failure?: string };
  readonly leads: boolean;
  readonly passes: number;
  readonly repaired: number;
}

export interface LoopsDeps {
  readonly facts: Pick<FactStore, "lead">;
  readonly log: Logger;
  readonly now: () => Date;
  /** For waits; the machine's own unless given. */
  readonly clock?: Clock;
  /** When it gives something else, all loops look at once: what they may do has changed. */
  readonly situation?: () => string;
  /** Told after every pass. */
  readonly onPass?: (status: LoopStatus) => void;
}

/**
 * Runs reconcilers, each in a loop of its own: at once, then `intervalMs` after the end of each pass, and
 * when it is woken. With several
 * adaptors on one store each loop runs on one of them.
 */
export class Loops implements AsyncDisposable {
  readonly #closing = new AbortController();
  /** Its end ends all pauses. */
  #pause = new AbortController();
  #watch: NodeJS.Timeout | undefined;
  #keep: NodeJS.Timeout | undefined;
  readonly #deps: LoopsDeps;
  readonly #status = new Map<string, LoopStatus>();
  #running: Promise<void>[] = [];

  constructor(deps: LoopsDeps) {
    this.#deps = deps;
  }

  /** What the loops did, for operators. */
  get status(): readonly LoopStatus[] {
    return [...this.#status.values()];
  }

  start(reconcilers: readonly Reconciler[]): void {
    const call = { signal: this.#closing.signal, background: true };
    const { situation } = this.#deps;
    if (situation !== undefined) {
      let known = situation();
      const look = (): void => {
        const before = known;
        known = situation();
        if (known !== before) this.wake();
      };
      this.#watch ??= setInterval(look, WATCH_MS).unref();
    }
    this.#keep ??= setInterval(() => this.#keepLeads(), KEEP_MS).unref();
    this.#running.push(...reconcilers.map((r) => this.#run(r, call)));
  }

  /** Those that pause look now. */
  wake(): void {
    const pause = this.#pause;
    this.#pause = new AbortController();
    pause.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#watch);
    clearInterval(this.#keep);
    this.#closing.abort();
    this.wake();
    await Promise.all(this.#running);
    this.#running = [];
    // So that another adaptor need not wait for it to run out, as it has to after a crash.
    const led = this.status.filter((s) => s.leads).map((s) => this.#deps.facts.lead(leadOf(s.name), 1));
    const released = Promise.all(led).catch((err: unknown) =>
      this.#deps.log.debug({ err }, "leads run out by themselves"),
    );
    await race(released, withDeadline(RELEASE_MS)).catch(() => undefined); // the store is away: they run out
  }

  async #run(reconciler: Reconciler, call: Call): Promise<void> {
    const { name, intervalMs } = reconciler;
    this.#status.set(name, { name, intervalMs, leads: false, passes: 0, repaired: 0 });
    while (!call.signal.aborted) {
      const began = performance.now();
      const againMs = await this.#pass(reconciler, call);
      // A pass over many takes long: it may not take more than a part of the time.
      const stretchMs = Math.min(PAUSES * (performance.now() - began), MAX_STRETCH_MS);
      const dueMs = Math.max(Math.min(againMs ?? intervalMs, intervalMs), stretchMs);
      // Who does not lead is there soon when the leader is gone, however seldom the loop runs.
      const pauseMs = this.#status.get(name)?.leads === true ? dueMs : Math.min(dueMs, KEEP_MS);
      if (call.signal.aborted) return;
      await sleepOn(this.#deps.clock ?? realClock, pauseMs, this.#pause).catch(() => undefined); // it was woken
    }
  }

  /** @returns when the reconciler wants to look again */
  async #pass(reconciler: Reconciler, call: Call): Promise<number | undefined> {
    const { log, now, onPass } = this.#deps;
    const began = performance.now();
    const at = now().toISOString();
    let pass: Pass = { examined: 0, repaired: 0 };
    let againMs: number | undefined;
    let failure: string | undefined;
    try {
      const token = await this.#lead(reconciler.name);
      if (token === undefined) {
        this.#note(reconciler.name, { leads: false });
        return undefined;
      }
      this.#note(reconciler.name, { leads: true });
      pass = await reconciler.reconcile(withDeadline(PASS_TIMEOUT_MS, call), async () => {
        if ((await this.#lead(reconciler.name)) === token) return;
        throw new Fault("aborted", `another adaptor runs ${reconciler.name} by now`);
      });
      const { againMs: soon, ...counts } = pass;
      againMs = soon;
      pass = counts;
      if (pass.repaired > 0) log.info({ loop: reconciler.name, ...pass }, "reconciled");
    } catch (e) {
      if (call.signal.aborted) return undefined;
      failure = Fault.from(e).fullMessage;
      log.warn({ loop: reconciler.name, err: e }, "reconcile pass failed, next one follows");
    }
    const known = this.#status.get(reconciler.name);
    const status = this.#note(reconciler.name, {
      leads: true,
      passes: (known?.passes ?? 0) + 1,
      repaired: (known?.repaired ?? 0) + pass.repaired,
      last: {
        at,
        tookMs: Math.round(performance.now() - began),
        ...pass,
        ...(failure === undefined ? {} : { failure }),
      },
    });
    onPass?.(status);
    return againMs;
  }

  #lead(name: string): Promise<number | undefined> {
    return this.#deps.facts.lead(leadOf(name), LEAD_MS);
  }

  /** Between passes and while one takes long; one that hangs ends by its time-out. A process that is frozen keeps none. */
  #keepLeads(): void {
    for (const { name, leads } of this.status) {
      if (!leads) continue;
      this.#lead(name).then(
        (token) => void (token === undefined && this.#note(name, { leads: false })),
        (err: unknown) => this.#deps.log.debug({ loop: name, err }, "the lead could not be kept, the next try follows"),
      );
    }
  }

  #note(name: string, change: Partial<LoopStatus>): LoopStatus {
    const before = this.#status.get(name) ?? { name, intervalMs: 0, leads: false, passes: 0, repaired: 0 };
    const status = { ...before, ...change };
    this.#status.set(name, status);
    return status;
  }
}

function leadOf(loop: string): string {
  return `loop:${loop}`;
}

import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import type { AdaptorStore, SandboxRecord } from "../store/index.ts";
import { type Circuit, Circuits } from "./circuits.ts";

export interface BreakerOptions {
  /** Starts of one pod that fail in a row before it has to wait. */
  readonly podFailures: number;
  /** The same for all pods of one class (type, size, image). */
  readonly classFailures: number;
  /** First wait, ms; it doubles with every failure after it. */
  readonly openMs: number;
  readonly maxOpenMs: number;
}

export interface BreakerDeps {
  readonly store: Pick<AdaptorStore, "facts" | "sandboxes">;
  readonly now: () => Date;
  readonly log: Logger;
}

type Key = Pick<SandboxRecord, "pod" | "request">;

interface Subject {
  readonly key: string;
  /** For people. */
  readonly subject: string;
  readonly limit: number;
}

/** A circuit that nothing happened to for this long after its wait is closed, ms. */
const FORGET_MS = 3_600_000;
/** Failures that are told apart by their sandbox: each adaptor of a store sees each of them. */
const RECENT = 64;
const STARTING: readonly SandboxRecord["phase"][] = ["creating", "booting"];
/** The node stopped a start that had a VM, the start gave up, or the VM died while it started. */
const FAILED: ReadonlySet<SandboxRecord["phase"]> = new Set(["stopping", "failed", "lost", "gone"]);

/**
 * Keeps pods that cannot start from burning a VM with every try: kubelet makes a new sandbox for such a pod every few
 * minutes, for ever. It watches the records: a sandbox that had a VM and ends before it is ready is a failure of its pod
 * and of its class. After some in a row no VM is made for a while; then one may try (half-open), and its end decides.
 * What it knows is in the store: it outlives the adaptor and is shared by all of them.
 */
export class CircuitBreaker implements AsyncDisposable {
  readonly #options: BreakerOptions;
  readonly #now: () => Date;
  readonly #circuits: Circuits;
  /** Sandboxes that have a VM and are not ready. */
  readonly #starting = new Set<string>();
  /** Sandboxes that were let through here to try. */
  readonly #probes = new Set<string>();
  readonly #unwatch: () => void;

  private constructor(options: BreakerOptions, { store, now, log }: BreakerDeps) {
    this.#options = options;
    this.#now = now;
    this.#circuits = new Circuits({ facts: store.facts, log });
    this.#unwatch = store.sandboxes.watch((record) => this.#observe(record));
  }

  /** Also reads which sandboxes were starting when an earlier adaptor ended: their failures count. */
  static async open(options: BreakerOptions, deps: BreakerDeps): Promise<CircuitBreaker> {
    const breaker = new CircuitBreaker(options, deps);
    for await (const part of deps.store.sandboxes.scan(STARTING)) for (const record of part) breaker.#observe(record);
    return breaker;
  }

  /** @throws Fault unavailable that says when it is tried again, also when the store cannot be asked */
  async check(sandbox: Key & Pick<SandboxRecord, "id">): Promise<void> {
    const now = this.#now().getTime();
    const subjects = this.#subjectsOf(sandbox);
    const known = await Promise.all(subjects.map(({ key }) => this.#circuits.get(key)));
    const there = subjects.flatMap((s, n) => (known[n] === undefined ? [] : { ...s, circuit: known[n] }));
    for (const { subject, circuit } of there)
      if (isOpen(circuit, sandbox.id, now)) throw refusal(subject, circuit, now);
    for (const { key, subject, circuit } of there) {
      if (circuit.openUntil === 0 || isForgotten(circuit, now)) continue;
      this.#probes.add(sandbox.id);
      const probe = { probe: sandbox.id, probeUntil: now + this.#options.openMs };
      // Others may ask in the same moment: one of them is the one that tries.
      const after = await this.#circuits.change(key, (c) =>
        c && !isOpen(c, sandbox.id, now) ? { ...c, ...probe } : c,
      );
      if (after !== undefined && isOpen(after, sandbox.id, now)) throw refusal(subject, after, now);
    }
  }

  /** Circuits that let nobody through at the moment, for metrics. */
  async countOpen(): Promise<number> {
    const now = this.#now().getTime();
    return [...(await this.#circuits.all()).values()].filter((c) => c.openUntil > now).length;
  }

  /** Resolves when what was seen so far is written. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#unwatch();
    await this.#circuits[Symbol.asyncDispose]();
  }

  #observe(record: SandboxRecord): void {
    const { id, phase } = record;
    if (STARTING.includes(phase)) {
      if (record.instance !== undefined) this.#starting.add(id);
    } else if (phase === "ready") {
      // Told again with every change of a record that is ready: only the first one ends a row of failures.
      this.#probes.delete(id);
      if (this.#starting.delete(id)) this.#succeed(record);
    } else if (FAILED.has(phase)) {
      const probe = this.#probes.delete(id);
      if (this.#starting.delete(id)) this.#fail(record);
      else if (probe) this.#freeProbe(record);
    }
  }

  #succeed(record: SandboxRecord): void {
    for (const { key } of this.#subjectsOf(record)) this.#circuits.note(key, () => undefined);
  }

  #fail(record: SandboxRecord): void {
    const { openMs, maxOpenMs } = this.#options;
    const now = this.#now().getTime();
    const lastReason = record.lastFault?.message ?? record.stopReason ?? "no reason is known";
    for (const { key, limit } of this.#subjectsOf(record)) {
      this.#circuits.note(key, (known) => {
        const before = known === undefined || isForgotten(known, now) ? undefined : known;
        if (before?.recent.includes(record.id) === true) return before; // another adaptor was first
        const failures = (before?.failures ?? 0) + 1;
        const waitMs = failures < limit ? 0 : Math.min(maxOpenMs, openMs * 2 ** Math.min(30, failures - limit));
        const recent = [...(before?.recent ?? []), record.id].slice(-RECENT);
        return { failures, openUntil: waitMs === 0 ? 0 : now + waitMs, probeUntil: 0, lastReason, usedAt: now, recent };
      });
    }
    this.#circuits.forget((circuit) => isForgotten(circuit, now));
  }

  /** A probe that ended before it had a VM has proved nothing: the next one may try. */
  #freeProbe({ id, ...record }: SandboxRecord): void {
    for (const { key } of this.#subjectsOf(record)) {
      this.#circuits.note(key, (known) => {
        if (known?.probe !== id) return known;
        const { probe, ...rest } = known;
        return rest;
      });
    }
  }

  #subjectsOf({ pod, request }: Key): readonly Subject[] {
    const { podFailures, classFailures } = this.#options;
    const { vcpus, memoryMiB, gpus, instanceType = "", image = "" } = request;
    const size = `${vcpus}/${memoryMiB}/${gpus}/${instanceType}/${image}`;
    const name = `${pod.namespace}/${pod.name}`;
    return [
      // A pod that was deleted and made again under its name is another one, and may have been repaired.
      { key: `pod/${name}/${pod.uid}`, subject: `pod ${name}`, limit: podFailures },
      { key: `class/${size}`, subject: `pods of this size and image (${className(request)})`, limit: classFailures },
    ];
  }
}

function isForgotten({ usedAt, openUntil }: Circuit, now: number): boolean {
  return Math.max(usedAt, openUntil) + FORGET_MS < now;
}

function isOpen(circuit: Circuit, sandbox: string, now: number): boolean {
  if (circuit.openUntil === 0) return false;
  if (now < circuit.openUntil) return true;
  return circuit.probe !== undefined && circuit.probe !== sandbox && now < circuit.probeUntil;
}

function refusal(subject: string, circuit: Circuit, now: number): Fault {
  const at = Math.max(circuit.openUntil, circuit.probe === undefined ? 0 : circuit.probeUntil);
  const retryAfterMs = Math.max(1000, at - now);
  const message =
    `${circuit.failures} VMs in a row were made for ${subject} and none became ready (the last: ` +
    `${circuit.lastReason}): the next one is made at ${new Date(at).toISOString()}, in ${Math.ceil(retryAfterMs / 1000)} s; ` +
    "correct the pod or its image, or make it anew";
  return new Fault("unavailable", message, { kind: "circuit-open", failures: circuit.failures, retryAfterMs });
}

function className({ vcpus, memoryMiB, instanceType, image }: SandboxRecord["request"]): string {
  return instanceType ?? `${vcpus} vCPUs, ${memoryMiB} MiB${image === undefined ? "" : `, ${image}`}`;
}

import { Fault } from "../../base/fault.ts";
import type { SandboxRecord } from "../store/index.ts";

export interface BreakerOptions {
  /** Starts of one pod that fail in a row before it has to wait. */
  readonly podFailures: number;
  /** The same for all pods of one class (type, size, image). */
  readonly classFailures: number;
  /** First wait, ms; it doubles with every failure after it. */
  readonly openMs: number;
  readonly maxOpenMs: number;
}

interface Circuit {
  readonly subject: string;
  failures: number;
  /** No VM before this, ms since the epoch. */
  openUntil: number;
  /** The one sandbox that may try though the circuit was open. */
  probe?: string;
  /** Until when a probe that gives no sign of life blocks others, ms since the epoch. */
  probeUntil: number;
  lastReason: string;
  usedAt: number;
}

type Key = Pick<SandboxRecord, "pod" | "request">;

const FORGET_MS = 3_600_000;
const STARTING: ReadonlySet<SandboxRecord["phase"]> = new Set(["creating", "booting"]);
/** The node stopped a start that had a VM, the start gave up, or the VM died while it started. */
const FAILED: ReadonlySet<SandboxRecord["phase"]> = new Set(["stopping", "failed", "lost", "gone"]);

/**
 * Keeps pods that cannot start from burning a VM with every try: kubelet makes a new sandbox for such a pod every few
 * minutes, for ever. It watches the records: a sandbox that had a VM and ends before it is ready is a failure of its pod
 * and of its class. After some in a row no VM is made for a while; then one may try (half-open), and its end decides.
 * What it knows is lost with the process: then every circuit is closed.
 */
export class CircuitBreaker {
  readonly #options: BreakerOptions;
  readonly #now: () => Date;
  readonly #circuits = new Map<string, Circuit>();
  /** Sandboxes that have a VM and are not ready. */
  readonly #starting = new Set<string>();

  constructor(options: BreakerOptions, deps: { readonly now: () => Date }) {
    this.#options = options;
    this.#now = deps.now;
  }

  /** @throws Fault unavailable that says when it is tried again */
  check(sandbox: Key & Pick<SandboxRecord, "id">): void {
    const now = this.#now().getTime();
    this.#forget(now);
    const circuits = this.#keysOf(sandbox).flatMap(({ key }) => this.#circuits.get(key) ?? []);
    for (const circuit of circuits) if (this.#isOpen(circuit, sandbox.id, now)) throw this.#refusal(circuit, now);
    for (const circuit of circuits) {
      if (circuit.openUntil === 0) continue;
      circuit.probe = sandbox.id;
      circuit.probeUntil = now + this.#options.openMs;
    }
  }

  /** Told of every record that is written. */
  observe(record: SandboxRecord): void {
    const { id, phase } = record;
    if (STARTING.has(phase)) {
      if (record.instance !== undefined) this.#starting.add(id);
    } else if (phase === "ready") {
      this.#starting.delete(id);
      for (const { key } of this.#keysOf(record)) this.#circuits.delete(key);
    } else if (FAILED.has(phase)) {
      if (this.#starting.delete(id)) this.#fail(record);
      else this.#freeProbe(record);
    }
  }

  /** Circuits that let nobody through at the moment, for metrics. */
  get open(): number {
    const now = this.#now().getTime();
    return [...this.#circuits.values()].filter((c) => c.openUntil > now).length;
  }

  #isOpen(circuit: Circuit, sandbox: string, now: number): boolean {
    if (circuit.openUntil === 0) return false;
    if (now < circuit.openUntil) return true;
    return circuit.probe !== undefined && circuit.probe !== sandbox && now < circuit.probeUntil;
  }

  #fail(record: SandboxRecord): void {
    const { openMs, maxOpenMs } = this.#options;
    const now = this.#now().getTime();
    for (const { key, subject, limit } of this.#keysOf(record)) {
      const known = this.#circuits.get(key);
      const circuit = known ?? { subject, failures: 0, openUntil: 0, probeUntil: 0, lastReason: "", usedAt: now };
      this.#circuits.set(key, circuit);
      circuit.failures++;
      circuit.usedAt = now;
      circuit.lastReason = record.lastFault?.message ?? record.stopReason ?? "no reason is known";
      delete circuit.probe;
      if (circuit.failures < limit) continue;
      circuit.openUntil = now + Math.min(maxOpenMs, openMs * 2 ** Math.min(30, circuit.failures - limit));
    }
  }

  /** A probe that ended before it had a VM has proved nothing: the next one may try. */
  #freeProbe(record: SandboxRecord): void {
    for (const { key } of this.#keysOf(record)) {
      const circuit = this.#circuits.get(key);
      if (circuit?.probe === record.id) delete circuit.probe;
    }
  }

  #keysOf({ pod, request }: Key): readonly { key: string; subject: string; limit: number }[] {
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

  #refusal(circuit: Circuit, now: number): Fault {
    const at = Math.max(circuit.openUntil, circuit.probe === undefined ? 0 : circuit.probeUntil);
    const retryAfterMs = Math.max(1000, at - now);
    const message =
      `${circuit.failures} VMs in a row were made for ${circuit.subject} and none became ready (the last: ` +
      `${circuit.lastReason}): the next one is made at ${new Date(at).toISOString()}, in ${Math.ceil(retryAfterMs / 1000)} s; ` +
      "correct the pod or its image, or make it anew";
    return new Fault("unavailable", message, { kind: "circuit-open", failures: circuit.failures, retryAfterMs });
  }

  #forget(now: number): void {
    for (const [key, { usedAt, openUntil }] of this.#circuits) {
      if (Math.max(usedAt, openUntil) + FORGET_MS < now) this.#circuits.delete(key);
    }
  }
}

function className({ vcpus, memoryMiB, instanceType, image }: SandboxRecord["request"]): string {
  return instanceType ?? `${vcpus} vCPUs, ${memoryMiB} MiB${image === undefined ? "" : `, ${image}`}`;
}

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { AdaptorStore, OperationRecord, Phase, SandboxRecord } from "../store/index.ts";

const PHASES: readonly Phase[] = ["prepared", "creating", "booting", "ready", "stopping", "gone", "failed", "lost"];
const SECONDS = [0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600];

/** The adaptor's Prometheus metrics. Not global: two adaptors in one process (tests) keep theirs apart. */
export class Metrics {
  readonly registry = new Registry();
  readonly #operations = new Histogram({
    name: "kata_remote_operation_seconds",
    help: "Time from submission to end of an operation, by kind and outcome",
    labelNames: ["kind", "outcome"],
    buckets: SECONDS,
    registers: [this.registry],
  });
  readonly #addresses = new Histogram({
    name: "kata_remote_start_to_address_seconds",
    help: "Time from an accepted StartVM to a known address",
    buckets: SECONDS,
    registers: [this.registry],
  });
  readonly #failures = new Counter({
    name: "kata_remote_rpc_failures_total",
    help: "gRPC calls that failed, by method and code",
    labelNames: ["method", "code"],
    registers: [this.registry],
  });

  constructor(store: AdaptorStore) {
    collectDefaultMetrics({ register: this.registry });
    new Gauge({
      name: "kata_remote_sandboxes",
      help: "Sandboxes the adaptor has a record of, by phase",
      labelNames: ["phase"],
      registers: [this.registry],
      async collect() {
        for (const phase of PHASES) this.set({ phase }, await store.sandboxes.count([phase]));
      },
    });
    const started = new Set<string>();
    store.sandboxes.watch((record) => this.#onChange(record, started));
  }

  operationOver(operation: OperationRecord): void {
    const seconds = (Date.parse(operation.finishedAt ?? "") - Date.parse(operation.submittedAt)) / 1000;
    this.#operations.observe({ kind: operation.kind, outcome: operation.state }, seconds);
  }

  rpcFailed(method: string, code: string): void {
    this.#failures.inc({ method, code });
  }

  /** Each start counts once, though `booting` records are written several times. */
  #onChange(record: SandboxRecord, started: Set<string>): void {
    if (record.phase === "creating") started.add(record.id);
    else if (started.delete(record.id) && record.phase === "booting" && record.intent !== undefined) {
      this.#addresses.observe((Date.parse(record.phaseSince) - Date.parse(record.intent.created)) / 1000);
    }
  }
}

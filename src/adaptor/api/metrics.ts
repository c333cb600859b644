import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { ProblemReport, Problems } from "../podvm/index.ts";
import type { LoopStatus } from "../reconcile/index.ts";
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

  readonly #passes = new Histogram({
    name: "kata_remote_reconcile_seconds",
    help: "Passes of reconcile loops that ran on this adaptor, by loop and outcome",
    labelNames: ["loop", "outcome"],
    buckets: SECONDS,
    registers: [this.registry],
  });
  readonly #repairs = new Counter({
    name: "kata_remote_reconcile_repaired_total",
    help: "What reconcile loops repaired",
    labelNames: ["loop"],
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

  /** Each scrape looks once, whatever the number of gauges. */
  showProblems(problems: Problems): void {
    let looked: Promise<ProblemReport> | undefined;
    const look = (): Promise<ProblemReport> => {
      looked ??= problems.look().finally(() => {
        looked = undefined;
      });
      return looked;
    };
    const gauge = (name: string, help: string, value: (report: ProblemReport) => number): void => {
      new Gauge({
        ...{ name: `kata_remote_${name}`, help, registers: [this.registry] },
        async collect() {
          this.set(value(await look()));
        },
      });
    };
    gauge("recovery_open", "1 while the store may have lost records and nothing is deleted", (r) =>
      r.recovery.open ? 1 : 0,
    );
    gauge("recovery_waiting_nodes", "Nodes that have not reported since", (r) => r.recovery.waitingFor.length);
    gauge("recovery_kept_instances", "Instances that no record owns and that are kept", (r) => r.recovery.kept.length);
    gauge("silent_nodes", "Nodes that were not heard of for nodes.silentMs", (r) => r.silentNodes.length);
    gauge("stuck_deletes", "Deletions that take longer than reconcile.stuckDeleteMs", (r) => r.stuckDeletes.length);
  }

  reconciled({ name, last }: LoopStatus): void {
    if (last === undefined) return;
    const outcome = last.failure === undefined ? "done" : "failed";
    this.#passes.observe({ loop: name, outcome }, last.tookMs / 1000);
    this.#repairs.inc({ loop: name }, last.repaired);
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

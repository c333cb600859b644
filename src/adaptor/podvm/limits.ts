import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import { type AdaptorStore, LIVE_PHASES, type SandboxRecord } from "../store/index.ts";

export interface SandboxLimits {
  /** Living at once, of all nodes of the cluster. */
  readonly sandboxes: number;
  /** Undefined: no limit. */
  readonly sandboxesPerNode?: number;
  readonly sandboxesPerNamespace?: number;
}

interface Place {
  readonly nodeId: string;
  readonly namespace: string;
}

/** News may be missed while a shared store is away: all is counted again after this, ms. */
const RECOUNT_MS = 600_000;

/**
 * Says no before anything is written, with the numbers. Counts the living sandboxes of the whole store: read now and
 * then, meanwhile kept by what the store tells, other adaptors' changes included. With several adaptors a limit may be passed by what
 * they admit within the same moment.
 */
export class Limits implements Disposable {
  readonly #store: AdaptorStore;
  readonly #limits: SandboxLimits;
  readonly #living = new Map<SandboxId, Place>();
  readonly #perNode = new Map<string, number>();
  readonly #perNamespace = new Map<string, number>();
  readonly #unwatch: () => void;
  #countedEpoch = "";
  #countedAt = 0;
  #counting: Promise<void> | undefined;

  private constructor(store: AdaptorStore, limits: SandboxLimits) {
    this.#store = store;
    this.#limits = limits;
    this.#unwatch = store.sandboxes.watch((record) => this.#see(record));
  }

  static async open(store: AdaptorStore, limits: SandboxLimits): Promise<Limits> {
    const opened = new Limits(store, limits);
    await opened.#count();
    return opened;
  }

  /**
   * Takes room for a sandbox that is about to be written. Whoever writes none after all gives it back by release().
   * @throws Fault resource_exhausted naming limit and numbers
   */
  async take(id: SandboxId, place: Place): Promise<void> {
    // A store that came back empty told of nobody's end.
    if (this.#countedEpoch !== this.#store.epoch.id) await this.#count();
    else if (performance.now() - this.#countedAt > RECOUNT_MS) this.#count().catch(() => undefined); // the next one does
    if (this.#living.has(id)) return;
    const { sandboxes, sandboxesPerNode, sandboxesPerNamespace } = this.#limits;
    check("limits.sandboxes", sandboxes, this.#living.size, "in the cluster");
    const { nodeId, namespace } = place;
    check("limits.sandboxesPerNode", sandboxesPerNode, this.#perNode.get(nodeId) ?? 0, `on node ${nodeId}`);
    const inNamespace = this.#perNamespace.get(namespace) ?? 0;
    check("limits.sandboxesPerNamespace", sandboxesPerNamespace, inNamespace, `in namespace ${namespace}`);
    this.#add(id, place);
  }

  release(id: SandboxId): void {
    const place = this.#living.get(id);
    if (place === undefined) return;
    this.#living.delete(id);
    count(this.#perNode, place.nodeId, -1);
    count(this.#perNamespace, place.namespace, -1);
  }

  [Symbol.dispose](): void {
    this.#unwatch();
  }

  #count(): Promise<void> {
    this.#counting ??= this.#countNow().finally(() => {
      this.#counting = undefined;
    });
    return this.#counting;
  }

  async #countNow(): Promise<void> {
    const epoch = this.#store.epoch.id;
    this.#countedAt = performance.now();
    for (const map of [this.#living, this.#perNode, this.#perNamespace]) map.clear();
    for await (const part of this.#store.sandboxes.scan(LIVE_PHASES)) for (const record of part) this.#see(record);
    this.#countedEpoch = epoch;
  }

  #see(record: SandboxRecord): void {
    if (!LIVE_PHASES.includes(record.phase)) this.release(record.id);
    else if (!this.#living.has(record.id)) {
      this.#add(record.id, { nodeId: record.nodeId, namespace: record.pod.namespace });
    }
  }

  #add(id: SandboxId, place: Place): void {
    this.#living.set(id, place);
    count(this.#perNode, place.nodeId, 1);
    count(this.#perNamespace, place.namespace, 1);
  }
}

function count(map: Map<string, number>, key: string, by: 1 | -1): void {
  const next = (map.get(key) ?? 0) + by;
  if (next === 0) map.delete(key);
  else map.set(key, next);
}

function check(name: string, limit: number | undefined, living: number, where: string): void {
  if (limit === undefined || living < limit) return;
  throw new Fault(
    "resource_exhausted",
    `all ${limit} sandboxes that ${name} allows are taken: ${living} live ${where}`,
    { living, limit },
  );
}

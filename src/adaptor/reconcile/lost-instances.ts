import type { Call } from "../../base/call.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { Instance, Provider } from "../../provider/index.ts";
import { amend, type Events } from "../podvm/index.ts";
import type { AdaptorStore, SandboxRecord } from "../store/index.ts";
import { isMassLoss } from "./plausible-listing.ts";
import { alone, type Fence, type Pass, type Reconciler } from "./reconciler.ts";

export interface LostInstancesDeps {
  readonly store: AdaptorStore;
  readonly provider: Provider;
  readonly events: Events;
  readonly cluster: string;
  readonly log: Logger;
  readonly now: () => Date;
  readonly intervalMs: number;
  /** When most instances are missing at once, the listing is believed only after it says so for this long, ms. */
  readonly massLossMs: number;
  /** Where all instances fit into one answer of the cloud they are looked for more often, ms: so costs little. */
  readonly fewIntervalMs?: number;
  /** Told of each pass' living instances with their records: other gaps between the two are closed there. */
  readonly onListed?: ((pairs: readonly (readonly [SandboxRecord, Instance])[]) => void) | undefined;
}

/** So many instances are a page of a listing, or a few. */
const FEW = 200;
/** Asked for by id in one pass; more are looked at in the next one. */
const ASKED = 50;

/**
 * Finds sandboxes whose instance ended by itself and marks them lost, which the node is told by its watch. An instance
 * that failed is lost at once; one that a listing does not show is asked for by id and has to be missing twice. A listing
 * that lacks most of what is recorded (an account's API that answers "nothing") is not believed at once.
 */
export class LostInstances implements Reconciler {
  readonly name = "lost-instances";
  readonly intervalMs: number;
  readonly #deps: LostInstancesDeps;
  #missing: ReadonlySet<SandboxId> = new Set();
  #massLossSince: number | undefined;

  constructor(deps: LostInstancesDeps) {
    this.#deps = deps;
    this.intervalMs = deps.intervalMs;
  }

  async reconcile(call: Call, fence: Fence = alone): Promise<Pass> {
    const { store, provider, cluster } = this.#deps;
    // Records first: an instance accepted after them cannot be missed in the listing.
    const records: SandboxRecord[] = [];
    for await (const part of store.sandboxes.scan(["booting", "ready"])) {
      records.push(...part.filter((r) => r.instance !== undefined));
    }
    if (records.length === 0) return { examined: 0, repaired: 0 };
    const instances = new Map((await provider.listInstances(cluster, call)).map((i) => [i.id, i]));
    const listed = (r: SandboxRecord): Instance | undefined => r.instance && instances.get(r.instance.id);
    const unlisted = records.filter((r) => listed(r) === undefined);
    this.#deps.onListed?.(
      records.flatMap((record) => {
        const instance = listed(record);
        return instance === undefined || reasonOfLoss(instance) !== undefined ? [] : [[record, instance] as const];
      }),
    );
    let repaired = 0;
    for (const record of records) {
      const instance = listed(record);
      const reason = instance === undefined ? undefined : reasonOfLoss(instance);
      if (reason !== undefined && (await this.#markLost(record, reason, fence))) repaired++;
    }
    if (this.#believes(unlisted.length, records.length)) repaired += await this.#ask(unlisted, call, fence);
    else this.#missing = new Set();
    const { fewIntervalMs } = this.#deps;
    const again = fewIntervalMs === undefined || instances.size > FEW ? {} : { againMs: fewIntervalMs };
    return { examined: records.length, repaired, ...again };
  }

  /** Asks for each by its id; one that is not there in two passes running is lost. */
  async #ask(unlisted: readonly SandboxRecord[], call: Call, fence: Fence): Promise<number> {
    const missing = new Set<SandboxId>();
    let repaired = 0;
    for (const record of unlisted.slice(0, ASKED)) {
      if (record.instance === undefined) continue;
      const instance = await this.#deps.provider.getInstance(record.instance.id, call);
      const reason = reasonOfLoss(instance);
      if (reason === undefined) continue;
      if (instance === undefined && !this.#missing.has(record.id)) missing.add(record.id);
      else if (await this.#markLost(record, reason, fence)) repaired++;
    }
    this.#missing = missing;
    return repaired;
  }

  #believes(unlisted: number, of: number): boolean {
    const { now, massLossMs, events } = this.#deps;
    if (!isMassLoss(unlisted, of)) {
      this.#massLossSince = undefined;
      return true;
    }
    if (this.#massLossSince === undefined) {
      this.#massLossSince = now().getTime();
      events.note("MassLoss", {}, `${unlisted} of ${of} instances are not listed: not believed for ${massLossMs} ms`);
    }
    return now().getTime() - this.#massLossSince >= massLossMs;
  }

  async #markLost(record: SandboxRecord, message: string, fence: Fence): Promise<boolean> {
    const { store, now, events } = this.#deps;
    await fence();
    const lastFault = { code: "unavailable", message, at: now().toISOString() };
    const after = await amend(store.sandboxes, record.id, ({ phase, instance }) => {
      const same = instance?.id === record.instance?.id && (phase === "booting" || phase === "ready");
      return same ? { phase: "lost", lastFault } : undefined;
    });
    if (after?.phase !== "lost") return false;
    events.note("InstanceLost", { sandbox: record.id, instance: record.instance?.id, node: record.nodeId }, message);
    return true;
  }
}

function reasonOfLoss(instance: Instance | undefined): string | undefined {
  if (instance === undefined) return "the instance is gone: it was deleted from outside";
  if (instance.state === "failed") return `the instance failed: ${instance.reason ?? "the provider gives no reason"}`;
  if (instance.state === "deleting") {
    return `the instance is being deleted from outside${instance.reason === undefined ? "" : `: ${instance.reason}`}`;
  }
  return undefined;
}

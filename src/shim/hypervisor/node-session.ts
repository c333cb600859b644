import { join } from "node:path";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../../base/files.ts";
import type { SandboxId } from "../../base/ids.ts";
import type { SyncNodeRequest, SyncNodeResponse } from "../../gen/kataremote/podvm/v1/podvm.ts";
import type { LiveSandboxes } from "./live-sandboxes.ts";
import type { PendingStops } from "./pending-stops.ts";

export interface NodeSessionOptions {
  readonly nodeId: string;
  readonly bootId: string;
  readonly runDir: string;
}

interface StorePosition {
  readonly epoch: string;
  /** Decimal: it has 64 bits. */
  readonly seq: string;
}

/**
 * What this node tells the adaptor of itself, in order: a session per daemon, a sequence within it, and the newest that
 * was heard of the adaptor's store, which is how a store that was set back is noticed.
 */
export class NodeSession {
  readonly #options: NodeSessionOptions;
  readonly #live: LiveSandboxes;
  readonly #stops: PendingStops;
  /** ns since boot: grows from one daemon to the next, which the wall clock may not do. */
  readonly #session = process.hrtime.bigint();
  #sequence = 0n;
  #store: StorePosition;

  private constructor(options: NodeSessionOptions, live: LiveSandboxes, stops: PendingStops, store: StorePosition) {
    this.#options = options;
    this.#live = live;
    this.#stops = stops;
    this.#store = store;
  }

  static async open(options: NodeSessionOptions, live: LiveSandboxes, stops: PendingStops): Promise<NodeSession> {
    await mkdirPrivate(options.runDir);
    return new NodeSession(options, live, stops, parse(await readIfThere(pathOf(options))));
  }

  /** The last report that was sent: it says nothing of what is made from now on. */
  get mark(): { readonly bootId: string; readonly session: bigint; readonly sequence: bigint } {
    return { bootId: this.#options.bootId, session: this.#session, sequence: this.#sequence };
  }

  /** The next report. */
  report(): Partial<SyncNodeRequest> {
    this.#sequence += 1n;
    const { nodeId, bootId } = this.#options;
    return {
      ...{ nodeId, bootId, session: this.#session, sequence: this.#sequence },
      ...{ liveSandboxIds: [...this.#live.ids], live: this.#live.entries().map(describe) },
      pendingStops: this.#stops.list().map(({ id, reason, instanceId }) => ({
        ...{ sandboxId: id, reason, instanceId: instanceId ?? "", _unknownFields: {} },
      })),
      ...{ storeEpoch: this.#store.epoch, storeSeq: BigInt(this.#store.seq) },
    };
  }

  /** Remembers how far the adaptor's store is. */
  async heard({ storeEpoch, storeSeq }: SyncNodeResponse): Promise<void> {
    if (storeEpoch === "") return; // an older adaptor
    const same = storeEpoch === this.#store.epoch;
    if (same && storeSeq <= BigInt(this.#store.seq)) return;
    this.#store = { epoch: storeEpoch, seq: String(storeSeq) };
    await writeFileAtomic(pathOf(this.#options), JSON.stringify(this.#store));
  }
}

function describe([id, live]: LiveSandboxes["entries"] extends () => readonly (infer E)[] ? E : never) {
  const { pod, containerd } = live;
  return {
    ...{ sandboxId: id as SandboxId, instanceId: live.instanceId ?? "", addresses: [...(live.addresses ?? [])] },
    ...{ port: live.port ?? 0, guestKey: live.guestKey ?? "", verifiedBy: live.verifiedBy ?? "" },
    ...{ ready: live.ready ?? false, pod: pod === undefined ? undefined : { ...pod } },
    ...{ containerdNamespace: containerd?.namespace ?? "", containerdId: containerd?.id ?? "" },
  };
}

function pathOf({ runDir }: NodeSessionOptions): string {
  return join(runDir, "adaptor-store.json");
}

function parse(text: string | undefined): StorePosition {
  const unknown = { epoch: "", seq: "0" };
  if (text === undefined) return unknown;
  try {
    const { epoch, seq } = JSON.parse(text) as Partial<StorePosition>;
    return typeof epoch === "string" && /^[0-9]{1,19}$/.test(seq ?? "") ? { epoch, seq: seq ?? "0" } : unknown;
  } catch {
    return unknown; // it is one of several ways to notice a loss
  }
}

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import { ended } from "../../src/base/retry.ts";
import type {
  Assignment,
  BatchCreation,
  Finding,
  Instance,
  InstanceBatch,
  InstanceSpec,
  Place,
  Provider,
} from "../../src/provider/index.ts";

/** How a ZeroProvider misbehaves; change it at any time. */
export interface ZeroKnobs {
  /** Thrown by the next creates, one each, before anything exists. */
  createFaults: Fault[];
  /** Thrown by the next creates, one each, after the instance exists: the answer is lost. */
  lostAnswers: Fault[];
  /** Calls of getInstance until a new instance has its address; 0 = at once. */
  pollsToAddress: number;
  /** Calls of deleteInstance that answer "deleting" before "gone". */
  pollsToGone: number;
  deleteFaults: Fault[];
  /** Thrown by the next attempts to put a sandbox's name on an instance, one each. */
  assignFaults: Fault[];
  createLatencyMs: number;
  /** Instances that a place of batches still has; one that is not named here has any number. */
  pools: Map<string, number>;
  /** Most instances at all; more are refused for a quota. */
  quota: number;
  /** What consoles show; undefined = no console can be read. */
  console: string | undefined;
}

interface Stored extends Omit<Instance, "id" | "createdAt"> {
  readonly id: string;
  readonly createdAt: string;
  polls: number;
  deletes: number;
}

/**
 * A cloud that costs nothing: instances are entries of a table, in files when given a directory (then they outlive the
 * process, as real ones do). It keeps the provider contract, and passes the same suite as real providers.
 */
export class ZeroProvider implements Provider {
  readonly name = "zero";
  readonly knobs: ZeroKnobs = {
    ...{ createFaults: [], lostAnswers: [], deleteFaults: [], assignFaults: [], pollsToAddress: 0, pollsToGone: 0 },
    ...{ createLatencyMs: 0, console: undefined, pools: new Map(), quota: Number.POSITIVE_INFINITY },
  };
  /** How many instances were ever made, repeated creates not counted. */
  created = 0;
  /** Create calls that have come in. */
  createCalls = 0;
  /** Present when it was given places. */
  readonly batches?: BatchCreation;
  /** Batches that were asked for, newest last. */
  readonly asked: InstanceBatch[] = [];
  /** By instance: what the adaptor said of it when it was given to a sandbox. */
  readonly assigned = new Map<string, Assignment>();
  readonly #table: Map<string, Stored> | string;

  constructor(options: { readonly dir?: string; readonly places?: readonly string[] } = {}) {
    this.#table = options.dir ?? new Map();
    const { places } = options;
    if (places !== undefined) {
      this.batches = {
        ...{ maxInstances: 10, maxPlaces: 5 },
        places: async () => places.map(zeroPlace),
        createInstances: (batch, call) => this.#createBatch(batch, call),
        assign: async (id, assignment) => {
          const fault = this.knobs.assignFaults.shift();
          if (fault !== undefined) throw fault;
          this.assigned.set(id, assignment);
          const { sandboxId, nodeId } = assignment;
          const found = this.#read(id);
          if (found !== undefined) this.#write({ ...found, assigned: { sandboxId, nodeId } });
        },
      };
    }
    if (options.dir !== undefined) mkdirSync(options.dir, { recursive: true });
  }

  async createInstance(spec: InstanceSpec, call: Call): Promise<Instance> {
    if (call.signal.aborted) throw ended(call);
    this.createCalls++;
    const { createLatencyMs, createFaults, lostAnswers, pollsToAddress } = this.knobs;
    if (createLatencyMs > 0) await delay(createLatencyMs, undefined, { signal: call.signal });
    const fault = createFaults.shift();
    if (fault !== undefined) throw fault;
    if (spec.gpus > 0) throw new Fault("invalid_argument", "provider zero has no GPUs", { provider: this.name });
    const token = createHash("sha256").update(`${spec.tags.cluster}/${spec.tags.createOperation}`).digest("hex");
    const id = `zero-${token.slice(0, 12)}`;
    const known = this.#read(id);
    if (known !== undefined) return toInstance(known);
    this.created++;
    const made: Stored = {
      ...{
        id,
        name: spec.name,
        tags: spec.tags,
        createdAt: new Date().toISOString(),
        deletes: 0,
        polls: pollsToAddress,
      },
      ...(pollsToAddress > 0 ? { state: "pending", addresses: [] } : { state: "running", addresses: ["127.0.0.1"] }),
    };
    this.#write(made);
    const lost = lostAnswers.shift();
    if (lost !== undefined) throw lost;
    return toInstance(made);
  }

  /** One more instance, like one that is there. */
  addLike(id: string, change: { readonly id: string; readonly tags: Instance["tags"] }): string {
    const known = this.#read(id);
    if (known === undefined) throw new Error(`there is no instance ${id}`);
    this.#write({ ...known, ...change });
    return change.id;
  }

  async #createBatch(batch: InstanceBatch, call: Call): Promise<readonly Instance[]> {
    if (call.signal.aborted) throw ended(call);
    this.asked.push(batch);
    const fault = this.knobs.createFaults.shift();
    if (fault !== undefined) throw fault;
    const { tags, name } = batch.class;
    const known = this.#all().filter((i) => i.tags.createOperation === tags.createOperation);
    if (known.length === 0) this.#launch(batch, name);
    const lost = this.knobs.lostAnswers.shift();
    if (lost !== undefined) throw lost;
    return this.#all()
      .filter((i) => i.tags.createOperation === tags.createOperation)
      .map(toInstance);
  }

  #launch({ class: { tags }, count, place }: InstanceBatch, name: string): void {
    const { pools, quota, pollsToAddress: polls } = this.knobs;
    if (this.#all().length + count > quota) {
      throw new Fault("resource_exhausted", `the quota of ${quota} is used up`, { kind: "quota" });
    }
    const left = pools.get(place) ?? count;
    const made = Math.min(left, count);
    if (made === 0)
      throw new Fault("resource_exhausted", `${place} has none`, { kind: "capacity" }, { retryable: true });
    if (pools.has(place)) pools.set(place, left - made);
    for (let n = 0; n < made; n++) {
      this.created++;
      const token = createHash("sha256").update(`${tags.cluster}/${tags.createOperation}/${n}`).digest("hex");
      this.#write({
        ...{ id: `zero-${token.slice(0, 12)}`, name, tags, createdAt: new Date().toISOString(), deletes: 0, polls },
        ...(polls > 0 ? { state: "pending", addresses: [] } : { state: "running", addresses: ["127.0.0.1"] }),
      });
    }
  }

  #all(): readonly Stored[] {
    return typeof this.#table === "string" ? this.#readDirectory(this.#table) : [...this.#table.values()];
  }

  async deleteInstance(id: InstanceId): Promise<"deleting" | "gone"> {
    const fault = this.knobs.deleteFaults.shift();
    if (fault !== undefined) throw fault;
    const found = this.#read(id);
    if (found === undefined) return "gone";
    if (found.deletes < this.knobs.pollsToGone) {
      this.#write({ ...found, deletes: found.deletes + 1, state: "deleting" });
      return "deleting";
    }
    this.#remove(id);
    return "gone";
  }

  async getInstance(id: InstanceId): Promise<Instance | undefined> {
    const found = this.#read(id);
    if (found === undefined || found.state !== "pending") return found && toInstance(found);
    const polls = found.polls - 1;
    const next: Stored =
      polls > 0 ? { ...found, polls } : { ...found, polls, state: "running", addresses: ["127.0.0.1"] };
    this.#write(next);
    return toInstance(next);
  }

  async listInstances(cluster: string): Promise<readonly Instance[]> {
    const all = typeof this.#table === "string" ? this.#readDirectory(this.#table) : [...this.#table.values()];
    return all.filter((stored) => stored.tags.cluster === cluster).map(toInstance);
  }

  async consoleOutput(id: InstanceId, maxBytes: number): Promise<string | undefined> {
    return this.#read(id) === undefined ? undefined : this.knobs.console?.slice(-maxBytes);
  }

  async verify(): Promise<readonly Finding[]> {
    return [{ subject: "zero", state: "ok", detail: "there is nothing that could be missing" }];
  }

  async close(): Promise<void> {
    // Nothing is open.
  }

  /** The instance ends by itself. */
  fail(id: InstanceId, reason: string): void {
    const found = this.#read(id);
    if (found !== undefined) this.#write({ ...found, state: "failed", reason });
  }

  #read(id: string): Stored | undefined {
    if (typeof this.#table !== "string") return this.#table.get(id);
    try {
      return JSON.parse(readFileSync(join(this.#table, id), "utf8")) as Stored;
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw e;
    }
  }

  #readDirectory(dir: string): Stored[] {
    return readdirSync(dir)
      .filter((name) => !name.startsWith("."))
      .flatMap((name) => this.#read(name) ?? []);
  }

  #write(stored: Stored): void {
    if (typeof this.#table !== "string") {
      this.#table.set(stored.id, stored);
      return;
    }
    const temporary = join(this.#table, `.${stored.id}`);
    writeFileSync(temporary, JSON.stringify(stored));
    renameSync(temporary, join(this.#table, stored.id));
  }

  #remove(id: string): void {
    if (typeof this.#table === "string") rmSync(join(this.#table, id), { force: true });
    else this.#table.delete(id);
  }
}

/** All places share one quota. */
function zeroPlace(key: string): Place {
  return {
    ...{ key, text: `zone ${key}` },
    scopes: { capacity: `pool/${key}`, "not-offered": `offer/${key}`, quota: "quota", "subnet-full": `subnet/${key}` },
  };
}

function toInstance(stored: Stored): Instance {
  const { polls, deletes, createdAt, id, ...rest } = stored;
  return { ...rest, id: id as InstanceId, createdAt: new Date(createdAt) };
}

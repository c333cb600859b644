import type { Call } from "../../../base/call.ts";
import { type Clock, sleepOn } from "../../../base/clock.ts";
import { type Deferred, deferred } from "../../../base/deferred.ts";
import { Fault, type FaultCode } from "../../../base/fault.ts";
import { newOperationId, type OperationId, type SandboxId } from "../../../base/ids.ts";
import type { Logger } from "../../../base/log.ts";
import { race } from "../../../base/retry.ts";
import type { BatchCreation, CloudAccount, InstanceClass, Place, Shortage } from "../../../provider/index.ts";
import { isShortage, PlaceSearch, type RateLimiter, type Shortages } from "../../capacity/index.ts";
import type { OperationQueue } from "../../operation/index.ts";
import type { AdaptorStore, OperationRecord, RecordedFault, SandboxRecord } from "../../store/index.ts";
import { waitsForInstance } from "../accept-instance.ts";
import { batchInput, classKey, readBatch } from "./instance-class.ts";
import { Tagger } from "./tagger.ts";

export interface LaunchesDeps {
  readonly store: AdaptorStore;
  readonly queue: OperationQueue;
  readonly batches: BatchCreation;
  /** Together: the account's limits, and the family of them that creates count against. */
  readonly limits?: { readonly limiter: RateLimiter; readonly account: Pick<CloudAccount, "createFamily"> } | undefined;
  readonly shortages: Shortages;
  readonly provider: string;
  readonly log: Logger;
  readonly clock: Clock;
  /** VMs of one class that are asked for within this time share a request, ms. */
  readonly windowMs: number;
  /** When the account's limit is used up, a request waits until it has what comes back in this time, ms. */
  readonly lingerMs: number;
}

/** A sandbox that waits for an instance. */
interface Ticket {
  readonly id: SandboxId;
  readonly line: Line;
  readonly over: Deferred<void>;
}

/** Sandboxes that any instance of one class would suit. */
interface Line {
  readonly wanted: InstanceClass;
  /** In no batch at present; the first comes first. */
  readonly waiting: Ticket[];
  planning: boolean;
  search: PlaceSearch;
  /** How many a place may be asked for at once, after it refused more. */
  readonly most: Map<string, number>;
}

/**
 * Gets instances for all sandboxes that wait, with as few requests as there can be: those of one class share them. Who
 * waits is known in memory only; what is asked for is an operation (`create-batch`), written before it is asked, and what
 * a sandbox got is in its record. So whoever runs the operation, here or in another adaptor, the record says how it ended.
 */
export class Launches implements AsyncDisposable {
  readonly tagger: Tagger;
  readonly #deps: LaunchesDeps;
  readonly #closing = new AbortController();
  readonly #lines = new Map<string, Line>();
  readonly #tickets = new Map<SandboxId, Ticket>();
  /** Batches that are not over, by sandbox. */
  readonly #batchOf = new Map<SandboxId, OperationId>();
  readonly #followed = new Set<OperationId>();
  readonly #unwatch: () => void;
  #learning: Promise<void> | undefined;

  constructor(deps: LaunchesDeps) {
    this.#deps = deps;
    const { batches, store, log, clock } = deps;
    this.tagger = new Tagger({ batches, sandboxes: store.sandboxes, log, now: () => clock.now() });
    this.#unwatch = store.sandboxes.watch((record) => this.#onRecord(record));
  }

  /**
   * Resolves when the sandbox's record has an instance, or does not wait for one any more.
   * @param again someone may have asked for it before: an open batch may be for it
   * @throws Fault resource_exhausted with the numbers when no place has room; what the cloud refuses; the call's end
   */
  async obtain(id: SandboxId, wanted: InstanceClass, again: boolean, call: Call): Promise<void> {
    if (again) await this.#learnOpenBatches();
    const line = this.#lineOf(wanted);
    const ticket: Ticket = { id, line, over: deferred<void>() };
    this.#tickets.set(id, ticket);
    try {
      if (!waitsForInstance(await this.#deps.store.sandboxes.get(id))) return;
      if (!this.#batchOf.has(id)) this.#enqueue([ticket]);
      await race(ticket.over.promise, call);
    } finally {
      if (this.#tickets.get(id) === ticket) this.#tickets.delete(id);
      const at = line.waiting.indexOf(ticket);
      if (at >= 0) line.waiting.splice(at, 1);
      this.#forget(line);
    }
  }

  /** The batch that a sandbox's instance is to come from, as far as this adaptor knows. */
  batchOf(id: SandboxId): OperationId | undefined {
    return this.#batchOf.get(id);
  }

  /** Takes sandboxes out of the line that are in no batch, for instances that were made for others. */
  takeWaiting(key: string, count: number): readonly SandboxId[] {
    const taken = this.#lines.get(key)?.waiting.splice(0, count) ?? [];
    return taken.map((t) => t.id);
  }

  /** Those of them that got nothing wait on. */
  giveBack(ids: readonly SandboxId[]): void {
    this.#enqueue(ids.flatMap((id) => this.#tickets.get(id) ?? []));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Fault("cancelled", "the adaptor is closing"));
    this.#unwatch();
    this.tagger.close();
  }

  get #call(): Call {
    return { signal: this.#closing.signal };
  }

  #onRecord(record: SandboxRecord): void {
    if (!waitsForInstance(record)) this.#tickets.get(record.id)?.over.resolve();
  }

  #lineOf(wanted: InstanceClass): Line {
    const key = classKey(wanted);
    const known = this.#lines.get(key);
    if (known !== undefined) return known;
    const line: Line = { wanted, waiting: [], planning: false, search: this.#newSearch(), most: new Map() };
    this.#lines.set(key, line);
    return line;
  }

  #newSearch(): PlaceSearch {
    const { shortages, batches } = this.#deps;
    return new PlaceSearch({ shortages, maxPlaces: batches.maxPlaces });
  }

  #enqueue(tickets: readonly Ticket[]): void {
    for (const ticket of tickets) {
      const { line, over } = ticket;
      if (over.settled || line.waiting.includes(ticket)) continue;
      line.waiting.push(ticket);
      if (!line.planning) void this.#plan(line);
    }
  }

  #forget(line: Line): void {
    const key = classKey(line.wanted);
    if (line.waiting.length === 0 && !line.planning && this.#lines.get(key) === line) this.#lines.delete(key);
  }

  /** Makes batches of a line until nobody is in it. */
  async #plan(line: Line): Promise<void> {
    line.planning = true;
    try {
      await sleepOn(this.#deps.clock, this.#deps.windowMs, this.#call);
      while (line.waiting.length > 0) await this.#planOne(line);
    } catch (e) {
      this.#fail(line, Fault.from(e));
    } finally {
      line.planning = false;
      this.#forget(line);
    }
  }

  async #planOne(line: Line): Promise<void> {
    const { batches, provider } = this.#deps;
    const places = await batches.places(line.wanted, this.#call);
    const first = line.search.next(places);
    const count = first === undefined ? 0 : await this.#admit(line, first);
    // While it waited for the account's limit, other batches may have found out more.
    const place = line.search.next(places);
    if (place === undefined) {
      this.#fail(line, line.search.fault({ provider }));
      this.#searchAnew(line);
      return;
    }
    const members = line.waiting.splice(0, Math.min(count, this.#most(line, place)));
    if (members.length > 0) await this.#begin(line, place, members);
  }

  #most(line: Line, place: Place): number {
    return Math.min(this.#deps.batches.maxInstances, line.most.get(place.key) ?? Number.POSITIVE_INFINITY);
  }

  /** Waits for the account's limit; how many there are is decided when it is the request's turn. */
  async #admit(line: Line, place: Place): Promise<number> {
    const { limits, lingerMs } = this.#deps;
    const atMost = (): number => Math.min(this.#most(line, place), line.waiting.length);
    if (limits === undefined) return atMost();
    const family = limits.account.createFamily;
    const atLeast = (): number => {
      const inLinger = Math.ceil((limits.limiter.instancesPerSecond(family) * lingerMs) / 1000);
      return Math.max(1, Math.min(atMost(), inLinger));
    };
    return limits.limiter.admit(family, { atLeast, atMost }, this.#call);
  }

  async #begin(line: Line, place: Place, members: readonly Ticket[]): Promise<void> {
    const { queue, clock } = this.#deps;
    const id = newOperationId();
    const ids = members.map((m) => m.id);
    for (const member of ids) this.#batchOf.set(member, id);
    try {
      const input = batchInput(line.wanted, place.key, ids, clock.now());
      await queue.submit({ kind: "create-batch", subject: id, id, input });
    } catch (e) {
      // Whether it was written is not known; a later look at the open batches will tell.
      for (const { id: member, over } of members) {
        this.#batchOf.delete(member);
        over.reject(Fault.from(e));
      }
      return;
    }
    this.#follow(id, ids, (over) => this.#conclude(line, place, ids, over));
  }

  #follow(id: OperationId, members: readonly SandboxId[], conclude: (over: OperationRecord) => Promise<void>): void {
    this.#followed.add(id);
    const follow = async (): Promise<void> => {
      const over = await this.#deps.queue.wait(id, this.#call);
      for (const member of members) if (this.#batchOf.get(member) === id) this.#batchOf.delete(member);
      await conclude(over);
    };
    follow()
      .catch((e: unknown) => {
        if (this.#closing.signal.aborted) return;
        this.#deps.log.warn({ operation: id, err: e }, "a batch's end is not known, its sandboxes start again");
        for (const member of members) this.#tickets.get(member)?.over.reject(Fault.from(e));
      })
      .finally(() => this.#followed.delete(id));
  }

  async #conclude(line: Line, place: Place, members: readonly SandboxId[], over: OperationRecord): Promise<void> {
    const unserved = await this.#unserved(members);
    if (over.state === "done") {
      const { shortages } = this.#deps;
      if (unserved.length > 0) shortages.note("capacity", place); // it gave what it had
      if (unserved.length < members.length) this.#searchAnew(line);
    } else {
      const kind = over.fault?.kind;
      if (!isShortage(kind)) {
        for (const ticket of unserved) ticket.over.reject(faultOf(over.fault));
        return;
      }
      this.#noteRefusal(line, place, kind, members.length, over.fault);
    }
    this.#enqueue(unserved);
  }

  /** A quota or a subnet may have room for fewer; a pool gives what it has, so it has nothing. */
  #noteRefusal(line: Line, place: Place, kind: Shortage, count: number, fault: RecordedFault | undefined): void {
    const divisible = (kind === "quota" || kind === "subnet-full") && count > 1;
    if (divisible) line.most.set(place.key, Math.floor(count / 2));
    else line.search.refused(place, kind, fault?.message ?? kind);
    const what = divisible ? "fewer are asked for there" : "the next place is tried";
    this.#deps.log.warn({ place: place.text, kind, count, reason: fault?.message }, `no room for the VMs: ${what}`);
  }

  #searchAnew(line: Line): void {
    line.search = this.#newSearch();
    line.most.clear();
  }

  #fail(line: Line, fault: Fault): void {
    for (const { over } of line.waiting.splice(0)) over.reject(fault);
  }

  async #unserved(members: readonly SandboxId[]): Promise<readonly Ticket[]> {
    // A start that was begun anew while the batch went on has another ticket by now.
    const waiting = members.flatMap((id) => this.#tickets.get(id) ?? []);
    const records = await Promise.all(waiting.map(({ id }) => this.#deps.store.sandboxes.get(id)));
    for (const [at, ticket] of waiting.entries()) if (!waitsForInstance(records[at])) ticket.over.resolve();
    return waiting.filter(({ over }) => !over.settled);
  }

  /** Batches that an earlier life of the adaptor, or another adaptor, has begun. */
  #learnOpenBatches(): Promise<void> {
    this.#learning ??= this.#learn().finally(() => {
      this.#learning = undefined;
    });
    return this.#learning;
  }

  async #learn(): Promise<void> {
    const open = await this.#deps.store.operations.list({ kind: "create-batch", states: ["queued", "running"] });
    for (const operation of open) {
      const { id, members } = readBatch(operation);
      if (this.#followed.has(id)) continue;
      for (const member of members) this.#batchOf.set(member, id);
      this.#follow(id, members, async () => {
        this.#enqueue(await this.#unserved(members));
      });
    }
  }
}

function faultOf(fault: RecordedFault | undefined): Fault {
  const {
    code = "internal",
    message = "the batch ended without a reason",
    kind,
    retryAfterMs,
    retryable,
  } = fault ?? {};
  return new Fault(code as FaultCode, message, { kind, retryAfterMs }, { retryable: retryable ?? false });
}

import { Fault } from "../../../base/fault.ts";
import type { SandboxId } from "../../../base/ids.ts";
import type { Instance, InstanceClass } from "../../../provider/index.ts";
import { isShortage } from "../../capacity/index.ts";
import type { Attempt, OperationHandler } from "../../operation/index.ts";
import type { SandboxRecord } from "../../store/index.ts";
import { giveInstance, isUsable, waitsForInstance } from "../accept-instance.ts";
import { deleteUntilGone } from "../delete-until-gone.ts";
import type { PodVmDeps } from "../deps.ts";
import { specOf } from "../instance-spec.ts";
import { type Batch, classKey, classOf, readBatch } from "./instance-class.ts";
import type { Launches } from "./launches.ts";

/** An error that nobody knows is believed to be a refusal after so many tries; the orphan collector sees to the rest. */
const UNKNOWN_TRIES = 5;
/** Kinds that say that nothing was made and never will be: the cloud has looked at the request and refused it. */
const REFUSALS: ReadonlySet<unknown> = new Set(["auth", "setup", "bad-request"]);
const PASSING: ReadonlySet<unknown> = new Set(["throttled", "transient", "mismatch"]);

type BatchDeps = PodVmDeps & { readonly launches: Launches };

/**
 * Handler of `create-batch`: one create request with the batch's id as its token, repeated with the same parameters until
 * the cloud has answered, so that a crash makes no second set. Then each instance is given to a sandbox by
 * compare-and-set on its record; what nobody takes is deleted.
 */
export function createBatchHandler(deps: BatchDeps): OperationHandler {
  return async (operation, attempt) => {
    const batch = readBatch(operation);
    const members = await Promise.all(batch.members.map((id) => deps.store.sandboxes.get(id)));
    const first = operation.attempt === 1;
    // Later attempts go on in any case: an earlier one may have had its effect.
    if (first && !members.some(waitsForInstance)) return;
    const { batches } = deps.provider;
    if (batches === undefined) throw new Fault("internal", `provider ${deps.provider.name} makes no batches`);
    const wanted = classOf(batch, deps.cluster, userDataOf(deps, members));
    await attempt.fence(`asking for ${batch.members.length} at ${batch.place}`);
    const request = { class: wanted, count: batch.members.length, place: batch.place, admitted: first };
    const made = await batches.createInstances(request, attempt.call).catch((e: unknown) => {
      throw asOutcome(e, operation.attempt);
    });
    await distribute(deps, { batch, wanted, made, first }, attempt);
  };
}

/** Members of a class have the same; with none left, the one that most have. */
function userDataOf(deps: PodVmDeps, members: readonly (SandboxRecord | undefined)[]): Uint8Array {
  const known = members.find((m) => m?.intent !== undefined);
  return known?.intent === undefined ? deps.userData() : specOf(known, known.intent, deps).userData;
}

/** Whether the batch is over with this error, or is asked for again. */
function asOutcome(thrown: unknown, attempt: number): Fault {
  const fault = Fault.from(thrown);
  const { kind } = fault.context;
  const final =
    isShortage(kind) || REFUSALS.has(kind) || (!fault.retryable && !PASSING.has(kind) && attempt >= UNKNOWN_TRIES);
  if (!final) return fault;
  return new Fault(fault.code, fault.fullMessage, { ...fault.context, final }, { retryable: fault.retryable });
}

interface Answer {
  readonly batch: Batch;
  readonly wanted: InstanceClass;
  readonly made: readonly Instance[];
  readonly first: boolean;
}

async function distribute(deps: BatchDeps, { batch, wanted, made, first }: Answer, attempt: Attempt): Promise<void> {
  const { store, launches, log } = deps;
  await attempt.fence();
  // In a fixed order: should a worker that was given up on still act, it gives each sandbox the same instance.
  const instances = made.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  const taken = first ? new Set<string>() : await takenInstances(deps);
  const give = async (id: SandboxId, instance: Instance): Promise<boolean> => {
    if (!(await giveInstance(store.sandboxes, id, instance))) return false;
    taken.add(instance.id);
    const record = await store.sandboxes.get(id);
    if (record?.intent !== undefined) {
      launches.tagger.tag(instance.id, { name: record.intent.name, sandboxId: id, nodeId: record.nodeId });
    }
    return true;
  };
  const free = instances.filter((i) => !taken.has(i.id) && isUsable(i));
  const served = await Promise.all(free.map(async (i, at) => give(batch.members[at] ?? ("" as SandboxId), i)));
  const rest = free.filter((_, at) => served[at] !== true);
  // A repeated attempt hands nothing on: an earlier worker may be doing so at this moment.
  if (first) await handOn(launches, { wanted, rest, short: batch.members.slice(free.length) }, give);
  const surplus = instances.filter((i) => !taken.has(i.id));
  if (surplus.length > 0)
    log.info({ operation: batch.id, surplus: surplus.length }, "instances that nobody waits for are removed");
  await Promise.all(surplus.map((i) => deleteUntilGone(deps, i.id, attempt.call)));
}

/** What its own sandbox does not take any more goes to others: of the batch first, then of the class. */
async function handOn(
  launches: Launches,
  left: { readonly wanted: InstanceClass; readonly rest: readonly Instance[]; readonly short: readonly SandboxId[] },
  give: (id: SandboxId, instance: Instance) => Promise<boolean>,
): Promise<void> {
  const instances = [...left.rest];
  const others = launches.takeWaiting(classKey(left.wanted), instances.length);
  try {
    for (const id of [...left.short, ...others]) {
      const [next] = instances;
      if (next === undefined) break;
      if (await give(id, next)) instances.shift();
    }
  } finally {
    launches.giveBack(others);
  }
}

async function takenInstances({ store }: PodVmDeps): Promise<Set<string>> {
  const records = await store.sandboxes.list();
  return new Set(records.flatMap((r) => r.instance?.id ?? []));
}

import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { type InstanceId, newOperationId, type OperationId, type SandboxId } from "../../base/ids.ts";
import { spkiFingerprint } from "../../identity/index.ts";
import type { Instance } from "../../provider/index.ts";
import type { OperationRecord, SandboxRecord } from "../store/index.ts";
import { amend } from "./amend.ts";
import type { PodVmDeps } from "./deps.ts";
import { verifyGuestKey } from "./guest-key.ts";
import { instanceName } from "./instance-spec.ts";
import { checkNode, type NodeCall } from "./node-call.ts";
import type { NodeReport, SyncAnswer } from "./node-report.ts";
import type { NodeSession } from "./node-sessions.ts";
import { ownsInstance } from "./ownership.ts";
import type { CreateVm, LossEvent, PodVmService, ReadyFacts, SignedGuest, StopVm } from "./pod-vm-service.ts";
import { RecordChanges } from "./record-changes.ts";
import { StartNews } from "./start-news.ts";
import { progressOf, type StartProgress, waitingOf } from "./start-progress.ts";
import type { StockGuestIdentity } from "./stock-request.ts";
import { recordToStop, syncNode } from "./sync-node.ts";
import { NEVER_READY } from "./tell-console.ts";

const ENDING: ReadonlySet<SandboxRecord["phase"]> = new Set(["stopping", "gone"]);

export class PodVms implements PodVmService {
  readonly #deps: PodVmDeps;
  readonly #news: StartNews;

  constructor(deps: PodVmDeps) {
    this.#deps = deps;
    this.#news = new StartNews(deps.store);
  }

  async enrollNode(nodeId: string, csrPem: string, call: NodeCall): Promise<{ certificatePem: string; caPem: string }> {
    checkNode(nodeId, call);
    const { ca } = this.#deps;
    return { certificatePem: await ca.signNode(csrPem, nodeId), caPem: ca.caPem };
  }

  async createVm(request: CreateVm, call: NodeCall): Promise<void> {
    checkNode(request.nodeId, call);
    const { id, nodeId, pod, containerd, size, madeAfter } = request;
    const { store, breaker, limits, sessions, now, log, stock: stockGuests } = this.#deps;
    await sessions.checkBoot(nodeId, madeAfter?.bootId ?? "");
    checkVolumes(this.#deps.provider, size.volumes);
    if ((await store.sandboxes.get(id)) === undefined) {
      await breaker?.check({ id, pod, request: size });
      await limits.take(id, { nodeId, namespace: pod.namespace });
      try {
        const stock = request.stock && (await stockGuests.prepare(request, request.stock));
        const createdAt = now().toISOString();
        await store.sandboxes.insert({
          ...{ id, phase: "prepared", nodeId, pod, containerd, request: size, createdAt },
          ...(madeAfter === undefined ? {} : { madeAfter }),
          ...(stock === undefined ? {} : { stock }),
        });
        log.info({ sandbox: id, pod: `${pod.namespace}/${pod.name}`, node: nodeId }, "sandbox prepared");
        return;
      } catch (e) {
        const twice = e instanceof Fault && e.code === "already_exists"; // made by the same call sent twice: below
        if (!twice) limits.release(id);
        if (!twice) throw e;
      }
    }
    const record = await this.#owned(id, call);
    checkNode(record.nodeId, { ...call, nodeId });
    if (ENDING.has(record.phase)) throw over(record);
  }

  async *startVm(id: SandboxId, call: NodeCall): AsyncIterable<StartProgress> {
    const { store, now } = this.#deps;
    using following = this.#news.follow(id);
    const epochId = store.epoch.id;
    let record = await this.#begin(id, call);
    const told = new Set<string>();
    // Who joins late is told what was tried before.
    for (let look = true, troubles: readonly OperationRecord[] = []; ; ) {
      for (const event of progressOf(record, now())) {
        if (told.has(event.stage)) continue;
        told.add(event.stage);
        yield event;
        if (event.stage === "address" || event.stage === "failed") return;
      }
      const known = look ? await this.#operationsOf(record).catch(() => []) : [];
      for (const operation of isHeldUp(record) ? [...known, ...troubles] : []) {
        const waiting = waitingOf(operation, now());
        if (waiting === undefined || told.has(waiting.message)) continue;
        told.add(waiting.message);
        yield waiting;
      }
      const news = await following.next(call);
      ({ look, troubles } = news);
      record = look ? await this.#lookAgain(news.record ?? record, epochId) : (news.record ?? record);
    }
  }

  async stopVm({ id, reason, nodeId, instanceId }: StopVm, call: NodeCall): Promise<void> {
    const node = call.nodeId ?? nodeId;
    const pending = { id, reason, ...(instanceId === undefined ? {} : { instanceId }) };
    const record =
      node === undefined
        ? await this.#deps.store.sandboxes.get(id)
        : await recordToStop(this.#deps, node, pending, call);
    if (record === undefined) return;
    checkNode(record.nodeId, call);
    await this.stop(id, reason);
  }

  async signGuest(id: SandboxId, csrPem: string, call: NodeCall): Promise<SignedGuest> {
    const { store, provider, ca, consoleWaitMs, log } = this.#deps;
    const record = await this.#owned(id, call);
    if (record.instance === undefined || (record.phase !== "booting" && record.phase !== "ready")) {
      throw new Fault(
        "failed_precondition",
        `sandbox ${id} is ${record.phase}: no guest of it can be waiting for a certificate`,
        { sandboxId: id },
      );
    }
    const fingerprint = spkiFingerprint(csrPem);
    refuseSecondKey(record, fingerprint, log);
    const certificatePem = await ca.signGuest(csrPem, id); // checks the request before the key is pinned
    const instanceId = record.instance.id;
    const verifiedBy =
      record.guestKey?.verifiedBy ??
      (await verifyGuestKey({ provider, instanceId, fingerprint, waitMs: consoleWaitMs }, call));
    await amend(store.sandboxes, id, (current) => {
      if (current.phase !== "booting" && current.phase !== "ready") throw over(current);
      refuseSecondKey(current, fingerprint, log);
      return current.guestKey === undefined ? { guestKey: { fingerprint, verifiedBy } } : undefined;
    });
    return { certificatePem, caPem: ca.caPem, verifiedBy };
  }

  async identifyStockGuest(id: SandboxId, publicKeyPem: string, call: NodeCall): Promise<StockGuestIdentity> {
    return this.#deps.stock.identify(await this.#owned(id, call), publicKeyPem);
  }

  async pullSecrets(id: SandboxId, call: NodeCall): Promise<string | undefined> {
    return this.#deps.stock.pullSecretsOf((await this.#owned(id, call)).pod);
  }

  async reportReady(id: SandboxId, call: NodeCall, facts?: ReadyFacts): Promise<void> {
    await this.#owned(id, call);
    let first = false;
    const record = await amend(this.#deps.store.sandboxes, id, ({ phase }) => {
      first = phase === "booting";
      return first ? { phase: "ready" } : undefined;
    });
    if (record !== undefined && record.phase !== "ready") throw over(record);
    if (!first || facts?.nodeRootfsAllowed !== true) return;
    const message = "a confidential pod has root file systems that its node made: its runtime class allows it";
    this.#deps.events.note("NodeRootfsAllowed", { sandbox: id, instance: record?.instance?.id }, message);
  }

  async syncNode(report: NodeReport, call: NodeCall): Promise<SyncAnswer> {
    checkNode(report.nodeId, call);
    return syncNode(this.#deps, report, (record, reason) => this.stop(record.id, reason), call);
  }

  async *watchVm(nodeId: string, call: NodeCall): AsyncIterable<LossEvent> {
    checkNode(nodeId, call);
    const { sandboxes } = this.#deps.store;
    using changes = new RecordChanges(sandboxes, (r) => r.nodeId === nodeId && r.phase === "lost");
    let lost = await sandboxes.list({ nodeId, phases: ["lost"] });
    for (;;) {
      for (const record of lost) {
        yield { sandboxId: record.id, instanceId: record.instance?.id ?? "", reason: record.lastFault?.message ?? "" };
      }
      lost = await changes.next(call);
    }
  }

  async forgetNode(nodeId: string, reason: string): Promise<readonly SandboxId[]> {
    const { store, sessions, events } = this.#deps;
    const known = await sessions.forget(nodeId);
    const records = (await store.sandboxes.list({ nodeId })).filter((r) => r.phase !== "gone");
    if (!known && records.length === 0) throw new Fault("not_found", `node ${nodeId} is unknown`, { node: nodeId });
    for (const record of records) await this.stop(record.id, reason);
    events.note("NodeForgotten", { node: nodeId }, `${records.length} sandboxes of it are being stopped: ${reason}`);
    return records.map((r) => r.id);
  }

  nodes(): Promise<readonly NodeSession[]> {
    return this.#deps.sessions.list();
  }

  sandboxes(): Promise<readonly SandboxRecord[]> {
    return this.#deps.store.sandboxes.list();
  }

  sandbox(id: SandboxId): Promise<SandboxRecord | undefined> {
    return this.#deps.store.sandboxes.get(id);
  }

  operations(limit: number): Promise<readonly OperationRecord[]> {
    return this.#deps.store.operations.list({ limit });
  }

  operation(id: OperationId): Promise<OperationRecord | undefined> {
    return this.#deps.store.operations.get(id);
  }

  instances(call: Call): Promise<readonly Instance[]> {
    return this.#deps.provider.listInstances(this.#deps.cluster, call);
  }

  async console(id: InstanceId, maxBytes: number, call: Call): Promise<string> {
    const { provider } = this.#deps;
    const text = await provider.consoleOutput(id, maxBytes, call);
    if (text !== undefined) return text;
    if ((await provider.getInstance(id, call)) === undefined) throw new Fault("not_found", `instance ${id} is unknown`);
    throw new Fault("unimplemented", `the console of ${id} cannot be read with provider ${provider.name}`);
  }

  async collect(id: InstanceId, call: Call): Promise<OperationId> {
    const { store, provider, queue } = this.#deps;
    const instance = await provider.getInstance(id, call);
    if (instance === undefined) throw new Fault("not_found", `instance ${id} is unknown`);
    const owner = (await store.sandboxes.list()).find((record) => ownsInstance(record, instance));
    if (owner !== undefined)
      throw new Fault("failed_precondition", `instance ${id} belongs to sandbox ${owner.id}: stop that`);
    return (await queue.submit({ kind: "collect-instance", subject: id, input: {} })).id;
  }

  /** @throws Fault not_found | permission_denied */
  async #owned(id: SandboxId, call: NodeCall): Promise<SandboxRecord> {
    const record = await this.#deps.store.sandboxes.get(id);
    if (record === undefined)
      throw new Fault("not_found", `sandbox ${id} is unknown: CreateVM comes first`, { sandboxId: id });
    checkNode(record.nodeId, call);
    return record;
  }

  /** Writes intent and operation, once: whoever comes second finds them there. */
  async #begin(id: SandboxId, call: NodeCall): Promise<SandboxRecord> {
    const { store, queue, now } = this.#deps;
    const record = await this.#owned(id, call);
    if (record.phase !== "prepared") return record;
    await this.#refuseSecondStart(record);
    const createOperation = newOperationId();
    const name = record.stock?.serverName ?? instanceName(record.pod.name, id);
    const intent = { createOperation, name, created: now().toISOString() };
    try {
      // Both are written in one turn of the event loop, so both or neither are on disk. The operation's handler looks
      // at the record first: should only the record fail to change, it ends without an effect.
      const [begun] = await Promise.all([
        store.sandboxes.update(record, { phase: "creating", intent }),
        queue.submit({ kind: "start-vm", subject: id, input: {}, id: createOperation }),
      ]);
      return begun;
    } catch (e) {
      if (!(e instanceof Fault && e.code === "aborted")) throw e;
      return this.#owned(id, call); // another call began it, or stopped it
    }
  }

  /** News may be lost, and the record too. @throws Fault not_found when the store lost it */
  async #lookAgain(record: SandboxRecord, epochId: string): Promise<SandboxRecord> {
    const { store } = this.#deps;
    try {
      const current = await store.sandboxes.get(record.id);
      if (current === undefined && store.epoch.id !== epochId) throw lost(record.id);
      return current ?? record;
    } catch (e) {
      if (store.epoch.id !== epochId) throw e;
      return record; // a store that is away for a moment ends no start
    }
  }

  /** What a start that has no instance yet waits for; its batch knows first why. */
  async #operationsOf({ id, intent, instance }: SandboxRecord): Promise<readonly OperationRecord[]> {
    if (intent === undefined || instance !== undefined) return [];
    const { store, launches } = this.#deps;
    const ids = [launches?.batchOf(id), intent.createOperation].filter((o) => o !== undefined);
    const found = await Promise.all(ids.map((operation) => store.operations.get(operation)));
    return found.filter((operation) => operation !== undefined);
  }

  /** A record that was set back may hide a start: a VM of that one may live without an owner. */
  async #refuseSecondStart(record: SandboxRecord): Promise<void> {
    const { store, recovery } = this.#deps;
    if (new Date(record.createdAt) >= store.epoch.createdAt || !(await recovery.isOpen())) return;
    throw new Fault(
      "failed_precondition",
      `sandbox ${record.id} is older than what the store has lost, it may have been started before: make a new one`,
      { sandboxId: record.id },
    );
  }

  /** Has it stopped, whoever asks: durable when it resolves. */
  async stop(id: SandboxId, reason: string): Promise<void> {
    const { store, queue, log } = this.#deps;
    let needed = false;
    let unready = false;
    const record = await amend(store.sandboxes, id, (current) => {
      needed = current.intent !== undefined;
      unready = current.phase === "creating" || current.phase === "booting";
      if (current.phase === "gone" || (current.phase === "stopping" && needed)) return undefined;
      if (current.phase === "stopping") return { phase: "gone" };
      return { phase: needed ? "stopping" : "gone", stopReason: reason };
    });
    if (record === undefined || !needed) return;
    // Were the adaptor to end right here, the record alone would have the reconciler submit it.
    await queue.submit({ kind: "stop-vm", subject: id, input: { reason, ...(unready ? NEVER_READY : {}) } });
    log.info({ sandbox: id, instance: record.instance?.id, reason }, "sandbox is being stopped");
    const starting = await store.operations.list({ subject: id, kind: "start-vm", states: ["queued", "running"] });
    for (const operation of starting) await queue.cancel(operation.id, `the sandbox is being stopped: ${reason}`);
  }
}

function refuseSecondKey(record: SandboxRecord, fingerprint: string, log: PodVmDeps["log"]): void {
  if (record.guestKey === undefined || record.guestKey.fingerprint === fingerprint) return;
  log.error(
    { sandbox: record.id, instance: record.instance?.id, fingerprint, pinned: record.guestKey.fingerprint },
    "a second guest claims a sandbox",
  );
  throw new Fault(
    "already_exists",
    `sandbox ${record.id} has a guest with another key: the second claimant is refused`,
    { sandboxId: record.id },
  );
}

function lost(id: SandboxId): Fault {
  return new Fault("not_found", `the store has lost sandbox ${id} while it was started: make a new one`, {
    sandboxId: id,
  });
}

function over(record: SandboxRecord): Fault {
  return new Fault("failed_precondition", `sandbox ${record.id} is ${record.phase}: make a new one`, {
    sandboxId: record.id,
  });
}

/** Whether what the start failed with is why it is not over: for want of a VM, or of its volumes. */
function isHeldUp({ instance, request }: SandboxRecord): boolean {
  return instance === undefined || (request.volumes !== undefined && instance.addresses.length === 0);
}

/** @throws Fault failed_precondition where no volumes can be attached, invalid_argument for what is no volume there */
function checkVolumes({ name, volumes }: PodVmDeps["provider"], asked: readonly string[] = []): void {
  if (asked.length === 0) return;
  if (volumes === undefined) {
    const message = `provider ${name} attaches no volumes, and the pod's VM is to have ${asked.join(", ")}: use volumes that follow the pod (ConfigMap, Secret, emptyDir)`;
    throw new Fault("failed_precondition", message, { provider: name });
  }
  for (const id of asked) volumes.check(id);
}

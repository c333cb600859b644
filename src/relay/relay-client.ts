import { randomUUID } from "node:crypto";
import { type Call, withDeadline } from "../base/call.ts";
import { deferred } from "../base/deferred.ts";
import { dialUnix } from "../base/dial-unix.ts";
import { Fault } from "../base/fault.ts";
import { parseSandboxId, type SandboxId } from "../base/ids.ts";
import type { Logger } from "../base/log.ts";
import { ended } from "../base/retry.ts";
import { VERSION } from "../base/version.ts";
import { OwnerDefinition, RelayDefinition } from "../gen/kataremote/relay/v1/relay.ts";
import {
  type CallOptions,
  createClient,
  type ServiceClient,
  StatusError,
  statusToFault,
  TtrpcClient,
  TtrpcServer,
  type UnaryCaller,
} from "../ttrpc/index.ts";
import { Operations } from "./operations.ts";
import {
  type AgentSocketSpec,
  type AgentSocketUse,
  type DoorSpec,
  type GuestFacts,
  type GuestSpec,
  type HeldByRelay,
  KEEP_KEY,
  type ProcessExit,
  type Relay,
  type StdioSpec,
  type TaskReply,
  type TaskRequest,
  type TreeReceipt,
  type TreeSpec,
} from "./relay.ts";
import { callSocket, Meta, metadataValue, ownerSocket, withoutOwn } from "./wire.ts";

/** What is answered from memory, ms. */
const SOON_MS = 10_000;

/** A relay that lives in a process of its own. */
export class RelayClient implements Relay {
  readonly dir: string;
  readonly pid: number;
  /** Of the relay process. */
  readonly version: string;
  readonly #log: Logger;
  readonly #client: TtrpcClient;
  readonly #relay: ServiceClient<typeof RelayDefinition>;
  readonly #specs = new Map<SandboxId, GuestSpec>();
  readonly #dead = deferred<void>();
  #owner: TtrpcServer | undefined;
  #left = false;

  private constructor(dir: string, deps: { client: TtrpcClient; log: Logger; pid: number; version: string }) {
    this.dir = dir;
    this.pid = deps.pid;
    this.version = deps.version;
    this.#log = deps.log;
    this.#client = deps.client;
    this.#relay = createClient(RelayDefinition, deps.client);
    void this.#client.closed.then(() => {
      if (!this.#left) this.#dead.resolve();
    });
  }

  /** @throws Fault unavailable when no relay process answers in that directory */
  static async connect(dir: string, deps: { readonly log: Logger }, call: Call): Promise<RelayClient> {
    const client = new TtrpcClient(await dialUnix(callSocket(dir), call));
    try {
      const relay = createClient(RelayDefinition, client);
      const { pid, version } = await relay.held({ version: VERSION }, { signal: call.signal, timeoutMs: SOON_MS });
      return new RelayClient(dir, { ...deps, client, pid, version });
    } catch (e) {
      client.close();
      throw statusToFault(e);
    }
  }

  /** Resolves when the relay process is gone; never after handOver. */
  get dead(): Promise<void> {
    return this.#dead.promise;
  }

  async held(call: Call): Promise<HeldByRelay> {
    const { guests, taskKeys } = await this.#ask((o) => this.#relay.held({ version: VERSION }, o), call);
    return {
      guests: new Map(guests.map((g) => [parseSandboxId(g.sandboxId), factsOf(g.facts)])),
      taskKeys: new Set(taskKeys),
    };
  }

  /** How the relay starts this daemon again when it dies; [] = it does not. */
  async setRestart(argv: readonly string[], call: Call): Promise<void> {
    await this.#ask((o) => this.#relay.setRestart({ argv: [...argv] }, o), call);
  }

  async onTaskRequest(answer: (request: TaskRequest, call: Call) => Promise<TaskReply>): Promise<void> {
    const operations = new Operations();
    const server = new TtrpcServer({ log: this.#log });
    server.addService(OwnerDefinition, {
      sign: async ({ sandboxId, csrPem }, call) => {
        const spec = this.#specs.get(parseSandboxId(sandboxId));
        if (spec === undefined) throw new Fault("not_found", `sandbox ${sandboxId} is not being connected`);
        return spec.sign(csrPem, { signal: call.signal });
      },
      stage: async ({ sandboxId, stage }) => {
        this.#specs.get(parseSandboxId(sandboxId))?.onStage?.(stage);
        return {};
      },
      cancel: async ({ key }) => {
        operations.cancel(key);
        return {};
      },
    });
    server.setFallback(async (payload, served) => {
      const { service, method, metadata, timeoutMs } = served;
      const request: TaskRequest = {
        key: metadataValue(metadata, Meta.task) ?? randomUUID(),
        door: metadataValue(metadata, Meta.door) ?? "",
        connection: Number(metadataValue(metadata, Meta.connection) ?? 0),
        ...{ service, method, payload, metadata: withoutOwn(metadata), timeoutMs },
      };
      const reply = await operations.run(served, (call) => answer(request, call), Meta.task);
      // Whatever a handler makes of our leaving is not containerd's to hear.
      if (this.#left) return await never();
      if (reply.ok) return reply.payload;
      throw new StatusError(reply.code, reply.message);
    });
    this.#owner = server;
    server.accept(await dialUnix(ownerSocket(this.dir), withDeadline(SOON_MS)));
  }

  async openDoor(door: DoorSpec): Promise<void> {
    await this.#ask((o) => this.#relay.openDoor({ ...door }, o), withDeadline(SOON_MS));
  }

  async closeDoor(door: string): Promise<void> {
    await this.#release((o) => this.#relay.closeDoor({ door }, o));
  }

  async connectGuest(spec: GuestSpec, call: Call): Promise<GuestFacts> {
    const { sandboxId, addresses, port, hostname, podNetworkJson = "", identity, lostAfterMs, stock } = spec;
    this.#specs.set(sandboxId, spec);
    try {
      const request = {
        sandboxId,
        addresses: [...addresses],
        port,
        hostname,
        podNetworkJson,
        lostAfterMs,
        ...identity,
        stock: stock && { certificatePem: "", minVersion: "", ciphers: "", ...stock },
      };
      return factsOf(await this.#ask((o) => this.#relay.connectGuest(request, o), call));
    } finally {
      this.#specs.delete(sandboxId);
    }
  }

  guest(id: SandboxId): UnaryCaller {
    return {
      call: async (service, method, payload, options = {}) => {
        const { signal, timeoutMs, metadata = [] } = options;
        const own = [...metadata, [Meta.sandbox, id] as const];
        const call = (o: CallOptions): Promise<Uint8Array> => this.#client.call(service, method, payload, o);
        const limit = timeoutMs === undefined ? {} : { timeoutMs };
        // Kept work goes on in the relay: it may be asked for again.
        if (metadataValue(metadata, KEEP_KEY) !== undefined)
          return this.#unlessLeft(call({ signal, ...limit, metadata: own }));
        return this.#cancellable((o) => call({ ...o, ...limit, metadata: [...own, ...(o.metadata ?? [])] }), signal);
      },
    };
  }

  async guestLost(id: SandboxId): Promise<{ readonly reason: string }> {
    try {
      const { reason } = await this.#unlessLeft(this.#relay.guestLost({ sandboxId: id }));
      return { reason };
    } catch (e) {
      return { reason: `the relay process that held its connection ended: ${statusToFault(e).fullMessage}` };
    }
  }

  declareLost(id: SandboxId, reason: string): void {
    this.#relay
      .declareLost({ sandboxId: id, reason })
      .catch((err: unknown) => this.#log.debug({ err, sandbox: id }, "the relay is gone, and the guest's connection"));
  }

  async disconnectGuest(id: SandboxId): Promise<void> {
    await this.#release((o) => this.#relay.disconnectGuest({ sandboxId: id }, o));
  }

  async sendTree(id: SandboxId, tree: TreeSpec, call: Call): Promise<TreeReceipt> {
    // Mounted for us only: the relay gets to it by our process.
    const request = { sandboxId: id, treeId: tree.treeId, path: `/proc/${process.pid}/root${tree.path}` };
    const { bytes, sha256, skipped } = await this.#ask((o) => this.#relay.sendTree(request, o), call);
    return { bytes: Number(bytes), sha256, skipped };
  }

  async openAgentSocket(spec: AgentSocketSpec): Promise<void> {
    const request = { directVolumesDir: "", rootfsDir: "", ...spec };
    await this.#ask((o) => this.#relay.openAgentSocket(request, o), withDeadline(SOON_MS));
  }

  async closeAgentSocket(id: SandboxId): Promise<void> {
    await this.#release((o) => this.#relay.closeAgentSocket({ sandboxId: id }, o));
  }

  async agentSocketUse(): Promise<readonly AgentSocketUse[]> {
    const { sockets } = await this.#ask((o) => this.#relay.agentSocketUse({}, o), withDeadline(SOON_MS));
    return sockets.map(({ sandboxId, connections, idleMs }) => ({
      ...{ sandboxId: parseSandboxId(sandboxId), connections, idleMs: Number(idleMs) },
    }));
  }

  async attachStdio(spec: StdioSpec, call: Call): Promise<void> {
    await this.#ask((o) => this.#relay.attachStdio({ ...spec, namespace: spec.namespace ?? "" }, o), call);
  }

  async stdioDrained(key: string): Promise<void> {
    await this.#unlessLeft(this.#relay.stdioDrained({ key })).catch(() => undefined); // the relay is gone: nothing flows
  }

  async processExit(key: string, call: Call): Promise<ProcessExit> {
    const { status, atUnixMs } = await this.#ask((o) => this.#relay.processExit({ key }, o), call);
    return { status, at: new Date(Number(atUnixMs)) };
  }

  async giveUpOutput(key: string): Promise<void> {
    await this.#release((o) => this.#relay.giveUpOutput({ key }, o));
  }

  async closeStdin(key: string, call: Call): Promise<void> {
    await this.#ask((o) => this.#relay.closeStdin({ key }, o), call);
  }

  async detachStdio(key: string): Promise<void> {
    await this.#release((o) => this.#relay.detachStdio({ key }, o));
  }

  async handOver(): Promise<void> {
    this.#left = true;
    this.#owner?.close();
    this.#client.close();
  }

  /** Ends the relay process. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#left && !this.#dead.settled) {
      await this.#relay
        .end({}, { timeoutMs: SOON_MS })
        .catch((err: unknown) => this.#log.debug({ err }, "the relay went before it answered"));
    }
    await this.handOver();
  }

  async #ask<T>(work: (options: CallOptions) => Promise<T>, call: Call): Promise<T> {
    try {
      return await this.#cancellable(work, call.signal);
    } catch (e) {
      throw statusToFault(e);
    }
  }

  /** Has the relay let go of something; one that died, or dies now, has let go of everything. */
  async #release(work: (options: CallOptions) => Promise<unknown>): Promise<void> {
    if (this.#dead.settled) return;
    try {
      await this.#ask(work, withDeadline(SOON_MS));
    } catch (e) {
      const { code, context } = Fault.from(e);
      if (code !== "unavailable" || context.sent === undefined) throw e; // else the connection broke
    }
  }

  /** The relay stops the work as soon as we do. */
  async #cancellable<T>(work: (options: CallOptions) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (signal === undefined) return this.#unlessLeft(work({}));
    if (signal.aborted) throw ended({ signal });
    const key = randomUUID();
    const cancel = (): void => {
      this.#relay.cancel({ key }).catch(() => undefined); // it is gone, and the work with it
    };
    signal.addEventListener("abort", cancel, { once: true });
    try {
      return await this.#unlessLeft(work({ signal, metadata: [[Meta.operation, key]] }));
    } finally {
      signal.removeEventListener("abort", cancel);
    }
  }

  /** After handOver nothing is answered: what would follow (an exit, an undo) is the next daemon's. */
  async #unlessLeft<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (e) {
      if (this.#left) return await never();
      throw e;
    }
  }
}

function never<T>(): Promise<T> {
  return new Promise<T>(() => undefined);
}

function factsOf(
  facts:
    | {
        readonly bootId: string;
        readonly kernelRelease: string;
        readonly guestVersion: string;
        readonly listeningMs: bigint;
        readonly verifiedBy: string;
        readonly tunnelKey: string;
      }
    | undefined,
): GuestFacts {
  const { bootId = "", kernelRelease = "", guestVersion = "", listeningMs = 0n, verifiedBy = "" } = facts ?? {};
  const known = { bootId, kernelRelease, guestVersion, listeningMs: Number(listeningMs), verifiedBy };
  return facts === undefined || facts.tunnelKey === "" ? known : { ...known, tunnelKey: facts.tunnelKey };
}

import { rm } from "node:fs/promises";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { SandboxId } from "../base/ids.ts";
import type { Logger } from "../base/log.ts";
import { backoffMs, sleep } from "../base/retry.ts";
import { VERSION } from "../base/version.ts";
import type {
  AgentSocketSpec,
  AgentSocketUse,
  DoorSpec,
  GuestFacts,
  GuestSpec,
  HeldByRelay,
  ProcessExit,
  Relay,
  RelayClient,
  StdioSpec,
  TaskReply,
  TaskRequest,
  TreeReceipt,
  TreeSpec,
} from "../relay/index.ts";
import type { UnaryCaller } from "../ttrpc/index.ts";

export interface RelaysDeps {
  readonly log: Logger;
  /** Relay processes of earlier daemons. */
  readonly found: readonly RelayClient[];
  readonly start: (call: Call) => Promise<RelayClient>;
  /** How each of them starts this daemon again; [] = it does not. */
  readonly restart: readonly string[];
  /** How long a relay of an earlier version stays after its last pod, ms. */
  readonly drainMs?: number;
}

type Answer = (request: TaskRequest, call: Call) => Promise<TaskReply>;

/** containerd closes its connections to the relay of pods that are gone within this time, ms. */
const DRAIN_MS = 10_000;
const BASE_MS = 200;
const MAX_MS = 10_000;

/**
 * The relay processes of this node. New pods go to one of this version; those of earlier versions keep their pods and
 * end when they have none. A relay process that dies takes its pods with it; the next one starts at once.
 */
export class Relays implements Relay {
  readonly #deps: RelaysDeps;
  readonly #log: Logger;
  readonly #clients = new Set<RelayClient>();
  /** Where a guest's connection is. */
  readonly #homes = new Map<SandboxId, RelayClient>();
  readonly #doors = new Map<string, DoorSpec>();
  readonly #over = new AbortController();
  #current: RelayClient;
  /** While the next one starts. */
  #starting: Promise<void> | undefined;
  #answer: Answer | undefined;

  private constructor(deps: RelaysDeps, current: RelayClient) {
    this.#deps = deps;
    this.#log = deps.log;
    this.#current = current;
    for (const client of new Set([...deps.found, current])) this.#adopt(client);
  }

  /** @throws Fault when there is no relay of this version and none can be started */
  static async open(deps: RelaysDeps, call: Call): Promise<Relays> {
    const current = deps.found.findLast((client) => client.version === VERSION) ?? (await deps.start(call));
    const relays = new Relays(deps, current);
    for (const client of relays.#clients) await client.setRestart(deps.restart, call);
    return relays;
  }

  get pid(): number {
    return this.#current.pid;
  }

  async held(call: Call): Promise<HeldByRelay> {
    const guests = new Map<SandboxId, GuestFacts>();
    const taskKeys = new Set<string>();
    for (const client of this.#clients) {
      const held = await client.held(call);
      for (const [id, facts] of held.guests) {
        guests.set(id, facts);
        this.#homes.set(id, client);
      }
      for (const key of held.taskKeys) taskKeys.add(key);
    }
    return { guests, taskKeys };
  }

  async onTaskRequest(answer: Answer): Promise<void> {
    this.#answer = answer;
    for (const client of this.#clients) await client.onTaskRequest(answer);
    for (const client of this.#clients) this.#drain(client);
  }

  async openDoor(door: DoorSpec): Promise<void> {
    this.#doors.set(door.door, door);
    try {
      await (await this.#ready()).openDoor(door);
    } catch (e) {
      this.#doors.delete(door.door);
      throw e;
    }
  }

  async closeDoor(door: string): Promise<void> {
    this.#doors.delete(door);
    await Promise.all([...this.#clients].map((client) => client.closeDoor(door)));
  }

  async connectGuest(spec: GuestSpec, call: Call): Promise<GuestFacts> {
    const client = await this.#ready();
    this.#homes.set(spec.sandboxId, client);
    return client.connectGuest(spec, call);
  }

  guest(id: SandboxId): UnaryCaller {
    return this.#home(id).guest(id);
  }

  async guestLost(id: SandboxId): Promise<{ readonly reason: string }> {
    return (await this.#homes.get(id)?.guestLost(id)) ?? { reason: "it was never connected" };
  }

  declareLost(id: SandboxId, reason: string): void {
    this.#homes.get(id)?.declareLost(id, reason);
  }

  async disconnectGuest(id: SandboxId): Promise<void> {
    const client = this.#homes.get(id);
    await client?.disconnectGuest(id);
    this.#homes.delete(id);
    if (client !== undefined) this.#drain(client);
  }

  async sendTree(id: SandboxId, tree: TreeSpec, call: Call): Promise<TreeReceipt> {
    return this.#home(id).sendTree(id, tree, call);
  }

  async openAgentSocket(spec: AgentSocketSpec): Promise<void> {
    await this.#home(spec.sandboxId).openAgentSocket(spec);
  }

  async closeAgentSocket(id: SandboxId): Promise<void> {
    await this.#homes.get(id)?.closeAgentSocket(id);
  }

  async agentSocketUse(): Promise<readonly AgentSocketUse[]> {
    return (await Promise.all([...this.#clients].map((client) => client.agentSocketUse()))).flat();
  }

  async attachStdio(spec: StdioSpec, call: Call): Promise<void> {
    await this.#home(spec.sandboxId).attachStdio(spec, call);
  }

  async stdioDrained(key: string): Promise<void> {
    await this.#ofStdio(key)?.stdioDrained(key);
  }

  async processExit(key: string, call: Call): Promise<ProcessExit> {
    return this.#home(sandboxOf(key)).processExit(key, call);
  }

  async giveUpOutput(key: string): Promise<void> {
    await this.#ofStdio(key)?.giveUpOutput(key);
  }

  async closeStdin(key: string, call: Call): Promise<void> {
    await this.#ofStdio(key)?.closeStdin(key, call);
  }

  async detachStdio(key: string): Promise<void> {
    await this.#ofStdio(key)?.detachStdio(key);
  }

  async handOver(): Promise<void> {
    this.#over.abort();
    await Promise.all([...this.#clients].map((client) => client.handOver()));
  }

  /** Ends every relay process. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await Promise.all([...this.#clients].map((client) => client[Symbol.asyncDispose]()));
  }

  #adopt(client: RelayClient): void {
    this.#clients.add(client);
    void client.dead.then(() => this.#onDead(client));
  }

  #onDead(client: RelayClient): void {
    this.#clients.delete(client);
    if (this.#over.signal.aborted) return;
    const pods = [...this.#homes.values()].filter((home) => home === client).length;
    this.#log.error({ relay: client.pid, pods }, "a relay process ended, its pods end with it");
    if (client === this.#current) this.#starting = this.#startNext();
  }

  async #startNext(): Promise<void> {
    const call = { signal: this.#over.signal };
    // Nobody listens on these: where there is none, launchers and containerd wait for the next one.
    await Promise.all([...this.#doors.values()].map((door) => rm(door.socketPath, { force: true }))).catch(
      (err: unknown) => this.#log.warn({ err }, "sockets of a dead relay stay until the next one replaces them"),
    );
    for (let attempt = 0; !call.signal.aborted; attempt++) {
      try {
        const client = await this.#deps.start(call);
        await client.setRestart(this.#deps.restart, call);
        if (this.#answer !== undefined) await client.onTaskRequest(this.#answer);
        for (const door of this.#doors.values()) await client.openDoor(door);
        this.#adopt(client);
        this.#current = client;
        this.#starting = undefined;
        this.#log.info({ relay: client.pid }, "relay process started");
        return;
      } catch (err) {
        this.#log.error({ err, attempt }, "no relay process can be started: no pod can be started");
        await sleep(backoffMs(attempt, BASE_MS, MAX_MS), call).catch(() => undefined); // the loop's condition ends it
      }
    }
  }

  async #ready(): Promise<RelayClient> {
    await this.#starting;
    return this.#current;
  }

  /** Ends a relay of an earlier version that has no pod left. */
  #drain(client: RelayClient): void {
    const empty = (): boolean => ![...this.#homes.values()].includes(client);
    if (client === this.#current || !empty()) return;
    void sleep(this.#deps.drainMs ?? DRAIN_MS, { signal: this.#over.signal })
      .then(async () => {
        if (!empty() || !this.#clients.has(client)) return;
        this.#clients.delete(client);
        this.#log.info({ relay: client.pid, version: client.version }, "a relay process has no pod left and ends");
        await client[Symbol.asyncDispose]();
      })
      .catch(() => undefined); // the daemon ends meanwhile
  }

  #home(id: SandboxId): RelayClient {
    const home = this.#homes.get(id);
    if (home === undefined) throw new Fault("not_found", `sandbox ${id} has no guest connection`, { sandboxId: id });
    return home;
  }

  #ofStdio(key: string): RelayClient | undefined {
    return this.#homes.get(sandboxOf(key));
  }
}

/** Source: GuestProcess: `<sandbox id>/<container id>/<exec id>`. */
function sandboxOf(stdioKey: string): SandboxId {
  return stdioKey.slice(0, stdioKey.indexOf("/")) as SandboxId;
}

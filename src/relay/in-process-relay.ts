import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { SandboxId } from "../base/ids.ts";
import type { Logger } from "../base/log.ts";
import { KeyedMutex } from "../base/mutex.ts";
import { race } from "../base/retry.ts";
import { GuestDefinition } from "../gen/kataremote/guest/v1/guest.ts";
import { createClient, type UnaryCaller } from "../ttrpc/index.ts";
import { AgentSocket } from "./agent-socket.ts";
import { GuestLink } from "./guest-link.ts";
import {
  type AgentSocketSpec,
  type AgentSocketUse,
  type DoorSpec,
  type GuestFacts,
  type GuestSpec,
  type HeldByRelay,
  type ProcessExit,
  type Relay,
  type StdioSpec,
  type TaskReply,
  type TaskRequest,
  TREE_ALPN,
  type TreeReceipt,
  type TreeSpec,
} from "./relay.ts";
import { Stdio } from "./stdio.ts";
import { TaskDoor } from "./task-door.ts";
import { Dialer } from "./tls-dial.ts";
import { sendTree } from "./tree-sender.ts";

export interface RelayOptions {
  readonly log: Logger;
  /** Every so often a silent guest is asked whether it lives, ms. */
  readonly keepAliveMs: number;
  /** How long it may take to answer before its connection is given up, ms. */
  readonly keepAliveDeadlineMs: number;
}

/** How often a root filesystem is sent before its failure counts. */
const TREE_ATTEMPTS = 3;

/** The relay inside the node daemon's own process. */
export class InProcessRelay implements Relay {
  readonly #options: RelayOptions;
  readonly #dialer = new Dialer();
  readonly #doors = new Map<string, TaskDoor>();
  readonly #guests = new Map<SandboxId, GuestLink>();
  readonly #agentSockets = new Map<SandboxId, AgentSocket>();
  readonly #stdio = new Map<string, Stdio>();
  readonly #facts = new Map<SandboxId, GuestFacts>();
  /** One tree goes into one guest once at a time; whoever comes second finds it there. */
  readonly #trees = new KeyedMutex();
  /** One timer for all guests. */
  readonly #ticker: NodeJS.Timeout;
  #answer: ((request: TaskRequest, call: Call) => Promise<TaskReply>) | undefined;

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#ticker = setInterval(() => {
      for (const guest of this.#guests.values()) void guest.keepAlive(options.keepAliveDeadlineMs);
    }, options.keepAliveMs);
    this.#ticker.unref();
  }

  get pid(): number {
    return process.pid;
  }

  /** Guests that are connected or being connected. */
  get guestCount(): number {
    return this.#guests.size;
  }

  async held(): Promise<HeldByRelay> {
    return { guests: new Map(this.#facts), taskKeys: new Set() };
  }

  async onTaskRequest(answer: (request: TaskRequest, call: Call) => Promise<TaskReply>): Promise<void> {
    this.#answer = answer;
  }

  async openDoor(spec: DoorSpec): Promise<void> {
    const known = this.#doors.get(spec.door);
    if (known !== undefined) return known.listen();
    const answer = this.#answer;
    if (answer === undefined) throw new Fault("failed_precondition", `door ${spec.door} has nobody who answers yet`);
    const door = new TaskDoor(spec, { answer, log: this.#options.log });
    this.#doors.set(spec.door, door);
    try {
      await door.listen();
    } catch (e) {
      this.#doors.delete(spec.door);
      throw e;
    }
  }

  async closeDoor(door: string): Promise<void> {
    const open = this.#doors.get(door);
    this.#doors.delete(door);
    await open?.close();
  }

  async connectGuest(spec: GuestSpec, call: Call): Promise<GuestFacts> {
    if (this.#guests.has(spec.sandboxId)) {
      throw new Fault("already_exists", `the guest of sandbox ${spec.sandboxId} is connected already`, {
        sandboxId: spec.sandboxId,
      });
    }
    const link = new GuestLink(spec, { dialer: this.#dialer, log: this.#options.log });
    this.#guests.set(spec.sandboxId, link);
    try {
      const facts = await link.open(call);
      this.#facts.set(spec.sandboxId, facts);
      return facts;
    } catch (e) {
      if (this.#guests.get(spec.sandboxId) === link) this.#guests.delete(spec.sandboxId);
      link.declareLost(Fault.from(e).fullMessage);
      throw e;
    }
  }

  guest(id: SandboxId): UnaryCaller {
    return this.#guest(id);
  }

  guestLost(id: SandboxId): Promise<{ readonly reason: string }> {
    return this.#guests.get(id)?.lost ?? Promise.resolve({ reason: "it was never connected" });
  }

  declareLost(id: SandboxId, reason: string): void {
    this.#guests.get(id)?.declareLost(reason);
  }

  async disconnectGuest(id: SandboxId): Promise<void> {
    const link = this.#guests.get(id);
    this.#guests.delete(id);
    this.#facts.delete(id);
    link?.declareLost("the node disconnected it");
  }

  async sendTree(id: SandboxId, tree: TreeSpec, call: Call): Promise<TreeReceipt> {
    const link = this.#guest(id);
    const bounded = { ...call, signal: AbortSignal.any([call.signal, link.over]) };
    return race(
      this.#trees.run(`${id}/${tree.treeId}`, () => this.#sendTree(link, tree, bounded)),
      call,
    );
  }

  async openAgentSocket(spec: AgentSocketSpec): Promise<void> {
    if (this.#agentSockets.has(spec.sandboxId)) return;
    const guest = this.#guest(spec.sandboxId);
    const sendTree = (tree: TreeSpec, call: Call): Promise<TreeReceipt> => this.sendTree(spec.sandboxId, tree, call);
    const socket = await AgentSocket.open(spec, { guest, log: this.#options.log, sendTree });
    this.#agentSockets.set(spec.sandboxId, socket);
  }

  async closeAgentSocket(id: SandboxId): Promise<void> {
    const socket = this.#agentSockets.get(id);
    this.#agentSockets.delete(id);
    await socket?.close();
  }

  async agentSocketUse(): Promise<readonly AgentSocketUse[]> {
    return [...this.#agentSockets].map(([sandboxId, socket]) => ({ sandboxId, ...socket.use }));
  }

  async attachStdio(spec: StdioSpec, call: Call): Promise<void> {
    if (this.#stdio.has(spec.key)) return;
    const opening = Stdio.attach(spec, { guest: this.#guest(spec.sandboxId), log: this.#options.log });
    const stdio = await race(opening, call).catch(async (e: unknown) => {
      // The caller went while files were being opened: nobody would ever detach them.
      void opening.then(
        (late) => late.detach(),
        () => undefined,
      );
      throw e;
    });
    this.#stdio.set(spec.key, stdio);
  }

  async stdioDrained(key: string): Promise<void> {
    await this.#stdio.get(key)?.drained();
  }

  async processExit(key: string, call: Call): Promise<ProcessExit> {
    const stdio = this.#stdio.get(key);
    if (stdio === undefined) throw new Fault("not_found", `no process has the stdio ${key}`);
    return race(stdio.exit, call);
  }

  async giveUpOutput(key: string): Promise<void> {
    this.#stdio.get(key)?.giveUpOutput();
  }

  async closeStdin(key: string, call: Call): Promise<void> {
    await this.#stdio.get(key)?.closeStdin(call);
  }

  async detachStdio(key: string): Promise<void> {
    const stdio = this.#stdio.get(key);
    this.#stdio.delete(key);
    await stdio?.detach();
  }

  /** Closes what is left of a sandbox that is gone. */
  async detachAll(id: SandboxId): Promise<void> {
    const keys = [...this.#stdio].filter(([, stdio]) => stdio.sandboxId === id).map(([key]) => key);
    await Promise.all(keys.map((key) => this.detachStdio(key)));
  }

  /** There is no next daemon for what lives in this process. */
  async handOver(): Promise<void> {
    await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#ticker);
    await Promise.all([...this.#doors.keys()].map((door) => this.closeDoor(door)));
    await Promise.all([...this.#stdio.keys()].map((key) => this.detachStdio(key)));
    await Promise.all([...this.#agentSockets.keys()].map((id) => this.closeAgentSocket(id)));
    await Promise.all([...this.#guests.keys()].map((id) => this.disconnectGuest(id)));
  }

  /** A connection that breaks on the way costs a new start of the tree, not the container. */
  async #sendTree(link: GuestLink, tree: TreeSpec, call: Call): Promise<TreeReceipt> {
    const guest = createClient(GuestDefinition, link);
    for (let attempt = 1; ; attempt++) {
      const { present } = await guest.statTree({ treeId: tree.treeId }, { signal: call.signal });
      if (present) return { bytes: 0, sha256: "", skipped: true };
      const peer = await link.dialBeside(TREE_ALPN, call);
      try {
        return await sendTree(peer.socket, tree, call);
      } catch (e) {
        if (attempt === TREE_ATTEMPTS || !Fault.from(e).retryable || call.signal.aborted) throw e;
        this.#options.log.warn({ tree: tree.treeId, attempt, err: e }, "a root filesystem is sent once more");
      }
    }
  }

  #guest(id: SandboxId): GuestLink {
    const link = this.#guests.get(id);
    if (link === undefined) throw new Fault("not_found", `sandbox ${id} has no guest connection`, { sandboxId: id });
    return link;
  }
}

import { readdir } from "node:fs/promises";
import type { Call } from "../../src/base/call.ts";
import { deferred } from "../../src/base/deferred.ts";
import { Fault } from "../../src/base/fault.ts";
import type { SandboxId } from "../../src/base/ids.ts";
import { race } from "../../src/base/retry.ts";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import {
  type AgentSocketSpec,
  type AgentSocketUse,
  type GuestFacts,
  type GuestSpec,
  type HeldByRelay,
  KEEP_KEY,
  KeptAnswers,
  type ProcessExit,
  type Relay,
  type StdioSpec,
  type TreeReceipt,
  type TreeSpec,
} from "../../src/relay/index.ts";
import { createClient, type UnaryCaller } from "../../src/ttrpc/index.ts";
import { FakeAgent } from "./agent.ts";

export const GUEST_FACTS: GuestFacts = {
  bootId: "boot-1",
  kernelRelease: "6.1.0-guest",
  guestVersion: "fake",
  listeningMs: 1,
  verifiedBy: "console",
};

/** A relay in memory: every guest is a FakeAgent, trees are looked at and forgotten, stdio carries nothing. */
export class FakeRelay implements Relay {
  readonly agents = new Map<SandboxId, FakeAgent>();
  /** Of the guests that are connected from now on. */
  guestFacts = GUEST_FACTS;
  readonly guestSpecs: GuestSpec[] = [];
  readonly trees: { sandboxId: SandboxId; tree: TreeSpec; entries: string[] }[] = [];
  readonly stdio = new Map<string, StdioSpec>();
  readonly closedStdin: string[] = [];
  readonly #lost = new Map<SandboxId, ReturnType<typeof deferred<{ reason: string }>>>();
  /** Makes the agent of the next guests. */
  newAgent: () => FakeAgent = () => new FakeAgent();
  /** Runs before a guest counts as connected. */
  beforeConnect: (spec: GuestSpec, call: Call) => Promise<void> = async () => {};
  beforeSendTree: (tree: TreeSpec, call: Call) => Promise<void> = async () => {};
  /** Output that nobody takes: stdioDrained never resolves. */
  stuckOutput = false;

  /** The only guest's agent. */
  get agent(): FakeAgent {
    const [agent, ...more] = this.agents.values();
    if (agent === undefined || more.length > 0) throw new Error(`${this.agents.size} guests`);
    return agent;
  }

  readonly pid = process.pid;
  /** Task calls that wait for the next daemon. */
  readonly taskKeys = new Set<string>();
  readonly #kept = new KeptAnswers({ isPending: (key) => this.taskKeys.has(key) });
  readonly #exits = new Map<string, Promise<ProcessExit>>();
  readonly #gaveUp = new Map<string, ReturnType<typeof deferred<void>>>();

  /** As when the process that held the guests is killed. */
  die(): void {
    this.agents.clear();
    this.stdio.clear();
  }

  async held(): Promise<HeldByRelay> {
    return { guests: new Map([...this.agents.keys()].map((id) => [id, GUEST_FACTS])), taskKeys: this.taskKeys };
  }

  async openDoor(): Promise<void> {}
  async closeDoor(): Promise<void> {}
  readonly agentSockets = new Map<SandboxId, AgentSocketSpec>();

  async openAgentSocket(spec: AgentSocketSpec): Promise<void> {
    this.agentSockets.set(spec.sandboxId, spec);
  }

  async closeAgentSocket(id: SandboxId): Promise<void> {
    this.agentSockets.delete(id);
  }

  async agentSocketUse(): Promise<readonly AgentSocketUse[]> {
    return [...this.agentSockets.keys()].map((sandboxId) => ({ sandboxId, connections: 1, idleMs: 0 }));
  }

  async onTaskRequest(): Promise<void> {}
  async handOver(): Promise<void> {}

  async connectGuest(spec: GuestSpec, call: Call): Promise<GuestFacts> {
    this.guestSpecs.push(spec);
    await this.beforeConnect(spec, call);
    spec.onStage?.("connected");
    await spec.sign("csr", call);
    spec.onStage?.("agent");
    this.agents.set(spec.sandboxId, this.newAgent());
    this.#lost.set(spec.sandboxId, deferred());
    return this.guestFacts;
  }

  guest(id: SandboxId): UnaryCaller {
    const agent = this.agents.get(id);
    if (agent === undefined) throw new Fault("not_found", `no guest ${id}`);
    return {
      call: (service, method, payload, options) => {
        const key = options?.metadata?.find(([name]) => name === KEEP_KEY)?.[1];
        if (key === undefined) return agent.call(service, method, payload, options);
        const rest = options?.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs };
        const gone = (): boolean => options?.signal?.aborted === true;
        const work = this.#kept.run(id, key, () => agent.call(service, method, payload, rest), gone);
        return options?.signal === undefined ? work : race(work, { signal: options.signal });
      },
    };
  }

  guestLost(id: SandboxId): Promise<{ readonly reason: string }> {
    return this.#lost.get(id)?.promise ?? Promise.resolve({ reason: "never connected" });
  }

  declareLost(id: SandboxId, reason: string): void {
    this.agents.get(id)?.lose(reason);
    this.#lost.get(id)?.resolve({ reason });
  }

  async disconnectGuest(id: SandboxId): Promise<void> {
    this.declareLost(id, "disconnected");
    this.agents.delete(id);
  }

  async sendTree(sandboxId: SandboxId, tree: TreeSpec, call: Call): Promise<TreeReceipt> {
    await this.beforeSendTree(tree, call);
    const skipped = this.trees.some((t) => t.sandboxId === sandboxId && t.tree.treeId === tree.treeId);
    this.trees.push({ sandboxId, tree, entries: (await readdir(tree.path)).sort() });
    return { bytes: 0, sha256: "", skipped };
  }

  async attachStdio(spec: StdioSpec): Promise<void> {
    if (spec.stdout.startsWith("binary:")) throw new Fault("unimplemented", `stdout "${spec.stdout}" is not supported`);
    if (this.stdio.has(spec.key)) return;
    this.stdio.set(spec.key, spec);
    const gaveUp = deferred<void>();
    this.#gaveUp.set(spec.key, gaveUp);
    const exit = this.#exit(spec, gaveUp.promise);
    exit.catch(() => undefined); // whoever asks for it sees the error
    this.#exits.set(spec.key, exit);
  }

  async processExit(key: string, call: Call): Promise<ProcessExit> {
    return await race(this.#exits.get(key) ?? Promise.reject(new Fault("not_found", `no stdio ${key}`)), call);
  }

  async giveUpOutput(key: string): Promise<void> {
    this.#gaveUp.get(key)?.resolve();
  }

  async #exit({ key, sandboxId, containerId, execId }: StdioSpec, gaveUp: Promise<void>): Promise<ProcessExit> {
    await Promise.race([this.stdioDrained(key), gaveUp]);
    const agent = createClient(AgentServiceDefinition, this.guest(sandboxId));
    const { status } = await agent.waitProcess({ containerId, execId });
    return { status, at: new Date() };
  }

  async stdioDrained(key: string): Promise<void> {
    if (this.stuckOutput) return await new Promise(() => {});
    const spec = this.stdio.get(key);
    if (spec !== undefined) await this.agents.get(spec.sandboxId)?.ended(spec.containerId, spec.execId);
  }

  async closeStdin(key: string): Promise<void> {
    this.closedStdin.push(key);
  }

  async detachStdio(key: string): Promise<void> {
    this.stdio.delete(key);
    this.#exits.delete(key);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** The relay as one daemon sees it. Once that is killed nothing is answered to it, and nothing done for it, any more. */
export function daemonsView(relay: FakeRelay): { readonly relay: Relay; kill(): void } {
  let killed = false;
  const gate = async <T>(work: Promise<T>): Promise<T> => {
    const [outcome] = await Promise.allSettled([work]);
    if (killed) await new Promise(() => undefined);
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  };
  const gated = (target: object, method: (...args: unknown[]) => unknown) => {
    return (...args: unknown[]): unknown => {
      if (killed) return new Promise(() => undefined);
      const result = method.apply(target, args);
      return result instanceof Promise ? gate(result) : result;
    };
  };
  const view = new Proxy<FakeRelay>(relay, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target);
      if (name === "guest") {
        return (id: SandboxId): UnaryCaller => {
          const caller = target.guest(id);
          return { call: gated(caller, caller.call as (...args: unknown[]) => unknown) as UnaryCaller["call"] };
        };
      }
      return typeof member === "function" ? gated(target, member as (...args: unknown[]) => unknown) : member;
    },
  });
  return {
    relay: view,
    kill: () => {
      killed = true;
    },
  };
}

import { rm } from "node:fs/promises";
import { dirname } from "node:path";
import { background, type Call, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { parseInstanceId, parseSandboxId, type SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { backoffMs, race, sleep } from "../../base/retry.ts";
import type { GuestFacts } from "../../relay/index.ts";
import type { VmAddress } from "../../shim/hypervisor/index.ts";
import { resumeStockPod, startStockPod, takeUpStockPod } from "./start-stock-pod.ts";
import type { StockDeps } from "./stock-deps.ts";
import type { StockState } from "./stock-state.ts";

const RETRY_BASE_MS = 500;
const RETRY_MAX_MS = 30_000;
const DETACH_MS = 30_000;

/**
 * One pod of a stock shim. Starting and stopping are its own affair: a shim that waits joins them, and one that goes away
 * changes nothing. Whatever is half done when a stop comes is taken down by it.
 */
export class StockPod {
  readonly #deps: StockDeps;
  readonly #onGone: (pod: StockPod) => void;
  readonly #log: Logger;
  readonly #over = new AbortController();
  readonly #bornAt = performance.now();
  #state: StockState;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;
  #settled = Promise.resolve();

  /** @param onGone Called when nothing of it is left here */
  constructor(deps: StockDeps, state: StockState, onGone: (pod: StockPod) => void) {
    this.#deps = deps;
    this.#onGone = onGone;
    this.#state = state;
    this.#log = deps.log.child({ sandbox: state.sandboxId, shimSandbox: state.id });
  }

  get id(): string {
    return this.#state.id;
  }

  get sandboxId(): SandboxId {
    return parseSandboxId(this.#state.sandboxId);
  }

  get pod(): StockState["pod"] {
    return this.#state.pod;
  }

  get socketPath(): string {
    return this.#state.socketPath;
  }

  /** Once its address is known. */
  get instanceId(): string | undefined {
    return this.#state.address?.instanceId;
  }

  get running(): boolean {
    return this.#state.address !== undefined && !this.ending;
  }

  get ending(): boolean {
    return this.#stopping !== undefined;
  }

  get ageMs(): number {
    return performance.now() - this.#bornAt;
  }

  /** Resolves when the agent answers; whoever comes later joins, or gets the same failure. @throws Fault */
  start(call: Call): Promise<void> {
    if (this.ending)
      return Promise.reject(
        new Fault("failed_precondition", `sandbox ${this.id} is being stopped: CreateVM makes a new one`),
      );
    if (this.#starting === undefined) {
      const started = this.#start();
      this.#starting = started;
      this.#settled = started.catch(() => undefined);
    }
    return race(this.#starting, call);
  }

  /**
   * Takes up what an earlier daemon had running; a pod that cannot be reached any more is stopped.
   * @param guest Of a connected one
   */
  async resume(guest: GuestFacts | undefined): Promise<void> {
    const { address } = this.#state;
    if (address === undefined) return; // its shim will start it, or stop it
    const call = { signal: this.#over.signal };
    const whole = { ...address, instanceId: parseInstanceId(address.instanceId) };
    const resumed =
      guest === undefined
        ? resumeStockPod(this.#deps, this.#state, whole, call)
        : takeUpStockPod(this.#deps, this.#state, guest, call);
    this.#starting = resumed;
    this.#settled = resumed.catch(() => undefined);
    try {
      await resumed;
      this.#log.info({ instance: address.instanceId }, "pod of a stock shim is taken up again");
    } catch (err) {
      if (this.ending) return;
      this.#log.error({ err }, "pod VM of an earlier daemon is not reached any more: it is stopped");
      void this.stop("it is not reached any more");
    }
  }

  /** The VM ended by itself: the shim's health check is to fail now. */
  lose(reason: string): void {
    this.#log.warn({ reason }, "pod VM is lost");
    this.#deps.relay.declareLost(this.sandboxId, reason);
  }

  /** Resolves when the deletion is durable and nothing of the pod is left here. Never rejects. */
  stop(reason: string): Promise<void> {
    this.#stopping ??= this.#stop(reason);
    return this.#stopping;
  }

  async #start(): Promise<void> {
    const begun = performance.now();
    try {
      const keep = async ({ instanceId, addresses, port }: VmAddress): Promise<void> => {
        this.#state = { ...this.#state, address: { instanceId, addresses: [...addresses], port } };
        await this.#deps.states.write(this.#state);
      };
      const { instanceId } = await startStockPod(this.#deps, this.#state, keep, { signal: this.#over.signal });
      const durationMs = Math.round(performance.now() - begun);
      this.#log.info({ instance: instanceId, durationMs }, "pod of a stock shim runs");
    } catch (e) {
      const fault = Fault.from(e);
      if (!this.ending) {
        this.#log.error({ err: fault }, "pod of a stock shim did not start");
        // Its shim sends StopVM; one that died would leave the VM.
        void this.stop(`its start failed: ${fault.fullMessage}`);
      }
      throw fault;
    }
  }

  async #stop(reason: string): Promise<void> {
    const { hypervisor, relay, states, podNetwork } = this.#deps;
    this.#over.abort(new Fault("cancelled", `sandbox ${this.id} is being stopped: ${reason}`));
    await this.#insist("close the agent socket", () => relay.closeAgentSocket(this.sandboxId));
    await this.#insist("disconnect the guest", () => relay.disconnectGuest(this.sandboxId));
    await this.#insist("stop the VM", () => hypervisor.stopVm(this.sandboxId, reason, background()));
    await this.#settled;
    // A start that was under way may have connected after all.
    await this.#insist("close the agent socket", () => relay.closeAgentSocket(this.sandboxId));
    await this.#insist("disconnect the guest", () => relay.disconnectGuest(this.sandboxId));
    await this.#detach();
    await this.#insist("give the tunnel's numbers back", async () => podNetwork?.release(this.sandboxId));
    await this.#insist("remove its directory", async () => {
      await rm(dirname(this.socketPath), { recursive: true, force: true });
      await states.remove(this.id);
    });
    this.#onGone(this);
    this.#log.info({ reason }, "pod of a stock shim is stopped");
  }

  /** Only what is left on the node depends on it, and the kernel removes most of that with the namespace. */
  async #detach(): Promise<void> {
    const { podNetwork } = this.#deps;
    const { netnsPath, sandboxId } = this.#state;
    if (podNetwork === undefined || netnsPath === undefined) return;
    await podNetwork.detach({ sandboxId, netnsPath }, withDeadline(DETACH_MS)).catch((err: unknown) => {
      this.#log.warn({ err }, "tunnel is not removed in full");
    });
  }

  /** Nothing of a stop may be left out: what fails is tried until it succeeds. */
  async #insist(what: string, work: () => Promise<unknown>): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await work();
        return;
      } catch (err) {
        this.#log.warn({ attempt, what, err }, "a step of a stop failed, trying again");
        await sleep(backoffMs(attempt, RETRY_BASE_MS, RETRY_MAX_MS), background());
      }
    }
  }
}

import { randomInt } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { Guest, GuestPool } from "./guests.ts";
import type { Timeline } from "./timeline.ts";

/** From the effect of a mutation to its answer, ms: the time in which a step between the two can be hit. */
const EFFECT_MS = 60;
/** From the launch until the guest begins to boot, ms. */
const BOOT_MS = 100;

/** Steps by the name of the agent's method that the guest is asked for. */
const AGENT_STEPS: Readonly<Record<string, string>> = {
  createSandbox: "sandbox-asked",
  createContainer: "container-asked",
  startContainer: "start-asked",
  signalProcess: "kill-asked",
  destroySandbox: "destroy-asked",
};

/** The adaptor's name for the VM of one of our pods. */
const OWN_NAME = /^podvm-(pod|bystander)-[0-9a-z-]+-[0-9a-f]{8}$/;

/** Guest processes that stand behind the VMs of a test account, each with an address of this machine. */
export class GuestVms {
  readonly #guests = new Map<string, Guest>();
  /** Ended, perhaps before they had booted. */
  readonly #ended = new Set<string>();
  readonly #pool: GuestPool;
  readonly #timeline: Timeline;
  readonly #network = `127.${randomInt(16, 250)}.${randomInt(0, 250)}`;
  #next = 1;

  constructor(deps: { readonly pool: GuestPool; readonly timeline: Timeline }) {
    this.#pool = deps.pool;
    this.#timeline = deps.timeline;
  }

  /** The account has made a VM. @returns its address, once the time has passed in which the step can be hit */
  async launch(id: string, userData: Buffer): Promise<string> {
    const address = `${this.#network}.${this.#next++}`;
    this.#timeline.note(`cloud: ${id} launched at ${address}`);
    this.#timeline.step("run-effect");
    this.#boot(id, userData, address).catch((e: unknown) =>
      this.#timeline.note(`cloud: ${id} cannot boot: ${String(e)}`),
    );
    await delay(EFFECT_MS);
    return address;
  }

  /** The account ends it, as it was asked to. */
  async end(id: string): Promise<void> {
    this.#timeline.note(`cloud: ${id} is ended`);
    this.#timeline.step("end-effect");
    this.kill(id);
    await delay(EFFECT_MS);
  }

  /** It dies by itself. */
  kill(id: string): void {
    this.#ended.add(id);
    this.#guests.get(id)?.kill();
  }

  console(id: string): string | undefined {
    return this.#guests.get(id)?.console;
  }

  /** Whose VM it is or was, by all evidence there is. */
  owners(id: string, tags: { readonly name: string; readonly sandbox: string | undefined }): readonly string[] {
    const { name, sandbox } = tags;
    // VMs that are made together have another name until each is somebody's.
    return [this.#guests.get(id)?.sandboxId, sandbox, OWN_NAME.test(name) ? name : undefined].filter(
      (owner) => owner !== undefined,
    );
  }

  /** Processes of VMs that the account does not have any more. */
  strays(isOver: (id: string) => boolean): readonly string[] {
    return [...this.#guests].filter(([id, g]) => isOver(id) && g.alive).map(([id, g]) => `process ${g.pid} of ${id}`);
  }

  killAll(): void {
    for (const id of this.#guests.keys()) this.kill(id);
  }

  async #boot(id: string, userData: Buffer, address: string): Promise<void> {
    await delay(BOOT_MS);
    if (this.#ended.has(id)) return;
    const onStep = async (method: string): Promise<void> => {
      const step = AGENT_STEPS[method];
      if (step !== undefined) this.#timeline.step(step);
    };
    const onConfigured = (): void => this.#timeline.step("configured");
    const guest = await this.#pool.boot({ userData, address, onStep, onConfigured });
    if (this.#ended.has(id)) return guest.kill();
    this.#guests.set(id, guest);
    this.#timeline.note(`cloud: ${id} boots as process ${guest.pid}`);
  }
}

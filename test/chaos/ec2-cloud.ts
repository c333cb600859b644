import { randomInt } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Ec2Endpoint, TEST_CREDENTIALS, WORKING_CONFIG } from "../clouds/ec2/index.ts";
import type { Cloud, CloudVm } from "./cloud.ts";
import type { Guest, GuestPool } from "./guests.ts";
import { RepeatingProxy } from "./repeating-proxy.ts";
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

/** An EC2 account whose instances are guest processes of this machine. */
export class Ec2Cloud implements Cloud {
  readonly provider = "aws";
  readonly endpoint: Ec2Endpoint;
  readonly proxy: RepeatingProxy;
  readonly #guests = new Map<string, Guest>();
  /** Killed before they had booted. */
  readonly #dead = new Set<string>();
  readonly #pool: GuestPool;
  readonly #timeline: Timeline;
  readonly #network = `127.${randomInt(16, 250)}.${randomInt(0, 250)}`;
  #next = 1;

  private constructor(endpoint: Ec2Endpoint, proxy: RepeatingProxy, pool: GuestPool, timeline: Timeline) {
    this.endpoint = endpoint;
    this.proxy = proxy;
    this.#pool = pool;
    this.#timeline = timeline;
    Object.assign(endpoint.account.knobs, { pendingMs: 100, shuttingDownMs: 100 });
    this.#tellRequests();
    proxy.onAnswer = (body) => {
      if (isMutation(body, "RunInstances")) this.#timeline.step("accepted");
    };
    endpoint.account.host = {
      launch: ({ id, userData }) => this.#launch(id, userData),
      terminate: (id) => this.#terminate(id),
      console: async (id) => this.#guests.get(id)?.console ?? "",
    };
  }

  static async open(deps: { readonly pool: GuestPool; readonly timeline: Timeline }): Promise<Ec2Cloud> {
    const endpoint = await Ec2Endpoint.start();
    const proxy = await RepeatingProxy.open(endpoint.url);
    return new Ec2Cloud(endpoint, proxy, deps.pool, deps.timeline);
  }

  /** For the adaptor's environment. */
  static readonly env: NodeJS.ProcessEnv = {
    AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretAccessKey,
    AWS_EC2_METADATA_DISABLED: "true",
  };

  get providerConfig(): Readonly<Record<string, unknown>> {
    return { ...WORKING_CONFIG, endpoint: this.proxy.url, requestTimeoutMs: 4_000 };
  }

  history(): readonly CloudVm[] {
    return [...this.endpoint.account.instances.values()].map((i) => {
      const name = i.tags.get("Name") ?? "";
      const owners = [
        this.#guests.get(i.id)?.sandboxId,
        i.tags.get("kata-remote:sandbox"),
        // Instances that are made together have another name until each is somebody's.
        OWN_NAME.test(name) ? name : undefined,
      ].filter((owner) => owner !== undefined);
      return { id: i.id, owners, began: i.launchedAt, ended: i.endedAt };
    });
  }

  leftovers(): readonly string[] {
    const { account } = this.endpoint;
    const ended = new Set([...account.instances.values()].filter((i) => i.endedAt !== undefined).map((i) => i.id));
    return [
      ...account
        .leftovers()
        .filter(({ id, kind }) => kind !== "instance" || !ended.has(id))
        .map(({ kind, id }) => `${kind} ${id}`),
      ...[...this.#guests].filter(([id, g]) => ended.has(id) && g.alive).map(([id, g]) => `process ${g.pid} of ${id}`),
    ];
  }

  killNewest(noticed: boolean): string | undefined {
    const living = [...this.endpoint.account.instances.values()].filter((i) => i.endedAt === undefined);
    const newest = living.at(-1);
    if (newest === undefined) return undefined;
    this.#dead.add(newest.id);
    this.#guests.get(newest.id)?.kill();
    if (noticed) {
      this.endpoint.account.end(
        newest.id,
        "Server.InternalError",
        "Server.InternalError: Internal error on launch or of the host",
      );
    }
    return newest.id;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const guest of this.#guests.values()) guest.kill();
    await this.proxy[Symbol.asyncDispose]();
    await this.endpoint[Symbol.asyncDispose]();
  }

  /** Steps of the endpoint are told as the requests come in, before they have any effect. */
  #tellRequests(): void {
    const { requests } = this.endpoint;
    const push = requests.push.bind(requests);
    requests.push = (...seen) => {
      for (const { action, parameters } of seen) {
        if (parameters.get("DryRun") === "true") continue;
        if (action === "RunInstances") this.#timeline.step("run-asked");
        else if (action === "TerminateInstances") this.#timeline.step("end-asked");
      }
      return push(...seen);
    };
  }

  async #launch(id: string, userData: Buffer): Promise<string> {
    const address = `${this.#network}.${this.#next++}`;
    this.#timeline.note(`cloud: ${id} launched at ${address}`);
    this.#timeline.step("run-effect");
    this.#boot(id, userData, address).catch((e: unknown) =>
      this.#timeline.note(`cloud: ${id} cannot boot: ${String(e)}`),
    );
    await delay(EFFECT_MS);
    return address;
  }

  async #boot(id: string, userData: Buffer, address: string): Promise<void> {
    await delay(BOOT_MS);
    if (this.#isOver(id)) return;
    const onStep = async (method: string): Promise<void> => {
      const step = AGENT_STEPS[method];
      if (step !== undefined) this.#timeline.step(step);
    };
    const guest = await this.#pool.boot({
      userData,
      address,
      onStep,
      onConfigured: () => this.#timeline.step("configured"),
    });
    if (this.#isOver(id)) return guest.kill();
    this.#guests.set(id, guest);
    this.#timeline.note(`cloud: ${id} boots as process ${guest.pid}`);
  }

  #isOver(id: string): boolean {
    return this.#dead.has(id) || this.endpoint.account.instances.get(id)?.endedAt !== undefined;
  }

  async #terminate(id: string): Promise<void> {
    this.#timeline.note(`cloud: ${id} is ended`);
    this.#timeline.step("end-effect");
    this.#guests.get(id)?.kill();
    await delay(EFFECT_MS);
  }
}

function isMutation(body: string, action: string): boolean {
  const form = new URLSearchParams(body);
  return form.get("Action") === action && form.get("DryRun") !== "true";
}

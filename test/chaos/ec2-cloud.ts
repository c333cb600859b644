import { Ec2Endpoint, type InjectedFault, TEST_CREDENTIALS, WORKING_CONFIG } from "../clouds/ec2/index.ts";
import type { Cloud, CloudRequest, CloudTrouble, CloudVm } from "./cloud.ts";
import { GuestVms } from "./guest-vms.ts";
import type { GuestPool } from "./guests.ts";
import { RepeatingProxy } from "./repeating-proxy.ts";
import type { Timeline } from "./timeline.ts";

/** Instances of the type that pods get have so many vCPUs, which is what quotas count. */
const VCPUS = 2;
const PENDING_MS = 100;
const SHUTTING_DOWN_MS = 100;
/** Longer than the provider waits for an answer, ms. */
const LATE_MS = 6_000;
const FOR_EVER_MS = 3_600_000;
const ACTIONS: Readonly<Record<CloudRequest, string>> = {
  launch: "RunInstances",
  end: "TerminateInstances",
  look: "DescribeInstances",
};
const REFUSALS = {
  throttle: ["RequestLimitExceeded", 503],
  "429": ["TooManyRequestsException", 429],
  error: ["InternalError", 500],
} as const;
/** Pools without room, as the account's knob names them. */
const SHORT = {
  best: ["m6a.large/*", "c6a.large/*"],
  "first-zone": ["*/eu-west-1a"],
  everywhere: ["*/*"],
} as const;

/** An EC2 account whose instances are guest processes of this machine. */
export class Ec2Cloud implements Cloud {
  readonly kind = "ec2";
  readonly provider = "aws";
  readonly endpoint: Ec2Endpoint;
  readonly proxy: RepeatingProxy;
  readonly #vms: GuestVms;
  readonly #timeline: Timeline;

  private constructor(endpoint: Ec2Endpoint, proxy: RepeatingProxy, vms: GuestVms, timeline: Timeline) {
    this.endpoint = endpoint;
    this.proxy = proxy;
    this.#vms = vms;
    this.#timeline = timeline;
    Object.assign(endpoint.account.knobs, { pendingMs: PENDING_MS, shuttingDownMs: SHUTTING_DOWN_MS });
    this.#tellRequests();
    proxy.onAnswer = (body) => {
      if (isMutation(body, "RunInstances")) this.#timeline.step("accepted");
    };
    endpoint.account.host = {
      launch: ({ id, userData }) => vms.launch(id, userData),
      terminate: (id) => vms.end(id),
      console: async (id) => vms.console(id) ?? "",
    };
  }

  static async open(deps: { readonly pool: GuestPool; readonly timeline: Timeline }): Promise<Ec2Cloud> {
    const endpoint = await Ec2Endpoint.start();
    const proxy = await RepeatingProxy.open(endpoint.url);
    return new Ec2Cloud(endpoint, proxy, new GuestVms(deps), deps.timeline);
  }

  readonly env: NodeJS.ProcessEnv = {
    AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretAccessKey,
    AWS_EC2_METADATA_DISABLED: "true",
  };

  get providerConfig(): Readonly<Record<string, unknown>> {
    return { ...WORKING_CONFIG, endpoint: this.proxy.url, requestTimeoutMs: 4_000 };
  }

  /** It has all of them. */
  canHave(): boolean {
    return true;
  }

  disturb(trouble: CloudTrouble): void {
    const { knobs } = this.endpoint.account;
    switch (trouble.kind) {
      case "twice":
        this.proxy.repeats = true;
        break;
      case "hidden":
        knobs.hiddenDescribes = trouble.looks;
        break;
      case "no-room":
        knobs.short = new Set(SHORT[trouble.where]);
        break;
      case "quota":
        knobs.vcpuQuota = new Map([["Standard/on-demand", trouble.vms * VCPUS]]);
        break;
      case "slow-end":
        knobs.shuttingDownMs = trouble.ms;
        break;
      case "stuck-creating":
        knobs.pendingMs = FOR_EVER_MS;
        break;
      default:
        this.endpoint.inject(injected(trouble));
    }
  }

  calm(): void {
    this.proxy.repeats = false;
    const { knobs, instances } = this.endpoint.account;
    Object.assign(knobs, { short: new Set(), vcpuQuota: new Map(), pendingMs: PENDING_MS, hiddenDescribes: 0 });
    for (const instance of instances.values()) instance.hiddenFor = 0;
  }

  history(): readonly CloudVm[] {
    return [...this.endpoint.account.instances.values()].map(({ id, tags, launchedAt, endedAt }) => {
      const owners = this.#vms.owners(id, { name: tags.get("Name") ?? "", sandbox: tags.get("kata-remote:sandbox") });
      return { id, owners, began: launchedAt, ended: endedAt };
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
      ...this.#vms.strays((id) => ended.has(id)),
    ];
  }

  killNewest(noticed: boolean): string | undefined {
    const living = [...this.endpoint.account.instances.values()].filter((i) => i.endedAt === undefined);
    const newest = living.at(-1);
    if (newest === undefined) return undefined;
    this.#vms.kill(newest.id);
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
    this.#vms.killAll();
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
}

function isMutation(body: string, action: string): boolean {
  const form = new URLSearchParams(body);
  return form.get("Action") === action && form.get("DryRun") !== "true";
}

function injected(trouble: CloudTrouble & { readonly kind: "refuse" | "delay" | "after-effect" }): InjectedFault {
  const action = ACTIONS[trouble.what];
  if (trouble.kind === "delay") return { action, delayMs: trouble.ms };
  const { times } = trouble;
  if (trouble.kind === "refuse") {
    const { retryAfterS } = trouble;
    const retryAfter = retryAfterS === undefined ? {} : { retryAfter: String(retryAfterS) };
    return { action, times, error: { ...errorOf(trouble.how), ...retryAfter } };
  }
  const how = { drop: { drop: true }, late: { delayMs: LATE_MS }, error: { error: errorOf("error") } }[trouble.how];
  return { action, times, afterEffect: true, ...how };
}

function errorOf(how: keyof typeof REFUSALS): { code: string; message: string; status: number } {
  const [code, status] = REFUSALS[how];
  return { code, message: `${code} for a test`, status };
}

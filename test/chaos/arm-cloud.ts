import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ArmEndpoint, AZURE_CONFIG, type InjectedFault } from "../clouds/arm/index.ts";
import type { Cloud, CloudRequest, CloudTrouble, CloudVm } from "./cloud.ts";
import { GuestVms } from "./guest-vms.ts";
import type { GuestPool } from "./guests.ts";
import type { Timeline } from "./timeline.ts";

const VM = "Microsoft.Compute/virtualMachines";
const VM_PATH = /\/virtualMachines\/[^/?]+\?/i;
/** The size that pods get here has so many vCPUs, which is what quotas count. */
const VCPUS = 2;
const CREATE_MS = 100;
const DELETE_MS = 100;
/** Longer than the provider waits for an answer, ms. */
const LATE_MS = 6_000;
const ACTIONS: Readonly<Record<CloudRequest, string>> = {
  launch: "VirtualMachines_CreateOrUpdate",
  end: "VirtualMachines_Delete",
  look: "VirtualMachines_List",
};
const REFUSALS = {
  throttle: ["OperationNotAllowed", 429],
  "429": ["SubscriptionRequestsThrottled", 429],
  error: ["InternalServerError", 500],
} as const;
const SHORT = {
  best: ["Standard_DC2as_v5/*"],
  "first-zone": ["*/1"],
  everywhere: ["*"],
} as const;

/** An Azure subscription whose VMs are guest processes of this machine. */
export class ArmCloud implements Cloud {
  readonly kind = "arm";
  readonly provider = "azure";
  readonly endpoint: ArmEndpoint;
  readonly env: NodeJS.ProcessEnv;
  readonly #caFile: string;
  readonly #vms: GuestVms;
  readonly #timeline: Timeline;

  private constructor(endpoint: ArmEndpoint, vms: GuestVms, more: { timeline: Timeline; caFile: string }) {
    const { cloud, tenant } = endpoint;
    this.endpoint = endpoint;
    this.#vms = vms;
    this.#timeline = more.timeline;
    this.#caFile = more.caFile;
    this.env = {
      AZURE_TENANT_ID: tenant.id,
      AZURE_CLIENT_ID: tenant.application.clientId,
      AZURE_CLIENT_SECRET: tenant.application.secret,
    };
    Object.assign(cloud.knobs, { createMs: CREATE_MS, deleteMs: DELETE_MS, retryAfterS: 0 });
    this.#tellRequests();
    endpoint.onAnswer = (method, path) => {
      if (method === "PUT" && VM_PATH.test(path)) this.#timeline.step("accepted");
    };
    cloud.host = {
      givesAddresses: true,
      launch: ({ vmId, userData }) => vms.launch(vmId, userData),
      remove: (id) => this.#end(id),
      stop: async (id) => vms.kill(this.#vmIdOf(id)),
      start: async () => undefined,
      console: async (id) => vms.console(this.#vmIdOf(id)) ?? "",
    };
  }

  static async open(deps: {
    readonly folder: string;
    readonly pool: GuestPool;
    readonly timeline: Timeline;
  }): Promise<ArmCloud> {
    const endpoint = await ArmEndpoint.start();
    const caFile = join(deps.folder, "azure-ca.pem");
    await writeFile(caFile, endpoint.certificates.ca);
    return new ArmCloud(endpoint, new GuestVms(deps), { timeline: deps.timeline, caFile });
  }

  get providerConfig(): Readonly<Record<string, unknown>> {
    const { url } = this.endpoint;
    return { ...AZURE_CONFIG, endpoint: url, authorityHost: url, caFile: this.#caFile, requestTimeoutMs: 4_000 };
  }

  /** It has all of them. */
  canHave(): boolean {
    return true;
  }

  disturb(trouble: CloudTrouble): void {
    const { knobs } = this.endpoint.cloud;
    switch (trouble.kind) {
      case "twice":
        this.endpoint.repeats = true;
        break;
      case "hidden":
        // Who asks for one VM asks less and less often.
        Object.assign(knobs, { hiddenLists: trouble.looks, hiddenReads: Math.ceil(trouble.looks / 4) });
        break;
      case "no-room":
        knobs.short = new Set(SHORT[trouble.where]);
        break;
      case "quota":
        knobs.quota = new Map([["cores", trouble.vms * VCPUS]]);
        break;
      case "slow-end":
        knobs.deleteMs = trouble.ms;
        break;
      case "stuck-creating":
        knobs.stuckCreations = trouble.times;
        break;
      default:
        this.endpoint.inject(injected(trouble));
    }
  }

  calm(): void {
    const { knobs, resources } = this.endpoint.cloud;
    this.endpoint.repeats = false;
    Object.assign(knobs, { short: new Set(), quota: new Map(), stuckCreations: 0, hiddenLists: 0, hiddenReads: 0 });
    for (const resource of resources.values()) Object.assign(resource, { hiddenLists: 0, hiddenReads: 0 });
  }

  history(): readonly CloudVm[] {
    const { cloud } = this.endpoint;
    return [...cloud.ended, ...cloud.all(VM)]
      .sort((a, b) => a.createdAt - b.createdAt)
      .map(({ vmId, tags, createdAt, endedAt }) => {
        const sandbox = tags.get("kata-remote:sandbox");
        const owners = this.#vms.owners(vmId, { name: tags.get("Name") ?? "", sandbox });
        return { id: vmId, owners, began: createdAt, ended: endedAt };
      });
  }

  leftovers(): readonly string[] {
    const { cloud } = this.endpoint;
    const left = cloud.leftovers();
    const ended = new Set(cloud.ended.map((vm) => vm.vmId));
    return [...left.map(({ kind, id }) => `${kind} ${id}`), ...this.#vms.strays((id) => ended.has(id))];
  }

  killNewest(noticed: boolean): string | undefined {
    const newest = this.endpoint.cloud
      .all(VM)
      .filter((vm) => vm.endedAt === undefined)
      .at(-1);
    if (newest === undefined) return undefined;
    this.#vms.kill(newest.vmId);
    // A VM that ends by itself is stopped, and costs money on.
    if (noticed) newest.power = "stopped";
    return newest.vmId;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#vms.killAll();
    await this.endpoint[Symbol.asyncDispose]();
  }

  #vmIdOf(id: string): string {
    return this.endpoint.cloud.find(VM, id)?.vmId ?? "";
  }

  #end(id: string): Promise<void> {
    return this.#vms.end(this.#vmIdOf(id));
  }

  /** Steps of the endpoint are told as the requests come in, before they have any effect. */
  #tellRequests(): void {
    const { requests } = this.endpoint;
    const push = requests.push.bind(requests);
    requests.push = (...seen) => {
      for (const { action } of seen) {
        if (action === ACTIONS.launch) this.#timeline.step("run-asked");
        else if (action === ACTIONS.end) this.#timeline.step("end-asked");
      }
      return push(...seen);
    };
  }
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
  const words = { throttle: "too many requests have been received", "429": "too many requests", error: "an error" };
  return { code, message: `${words[how]}, for a test`, status };
}

import type * as Ec2 from "@aws-sdk/client-ec2";
import type { Call } from "../../src/base/call.ts";
import { type Clock, realClock, sleepOn } from "../../src/base/clock.ts";
import type { Fault } from "../../src/base/fault.ts";
import { backoffMs, ended } from "../../src/base/retry.ts";
import type { RequestGate, RequestPass } from "../../src/provider/index.ts";
import type { AwsConfig } from "./config.ts";
import { kindOf, toFault } from "./faults.ts";
import type { RequestFamilyName } from "./request-families.ts";

const CONNECT_TIMEOUT_MS = 3000;
const BACKOFF_BASE_MS = 200;
const BACKOFF_MAX_MS = 10_000;
/** Reading a page holds up everything else in this process: 200 instances are some 30 ms. */
const PAGE = 200;
const TYPES_PAGE = 100;

type Sdk = typeof Ec2;
/** What carries requests: HTTP, unless a simulation has an account of its own in this process. */
export type Transport = NonNullable<Ec2.EC2ClientConfig["requestHandler"]>;

/** What a request costs and whether that has been paid. */
interface Cost {
  readonly instances: number;
  readonly admitted: boolean;
}

const FREE: Cost = { instances: 0, admitted: false };

type Paged<T> = { readonly items: readonly T[] | undefined; readonly nextToken: string | undefined };

/** The SDK is loaded here and nowhere else: another provider never pays for it. */
export async function openEc2(
  config: AwsConfig,
  options: { readonly clock?: Clock | undefined; readonly transport?: Transport | undefined } = {},
): Promise<Ec2Api> {
  const sdk = await import("@aws-sdk/client-ec2");
  const { requestTimeoutMs, endpoint, region } = config;
  const client = new sdk.EC2Client({
    region,
    ...(endpoint === undefined ? {} : { endpoint }),
    // Repeated here and not by the SDK: that would repeat "no capacity" too, which EC2 answers with status 500.
    maxAttempts: 1,
    requestHandler: options.transport ?? {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      requestTimeout: requestTimeoutMs,
      throwOnRequestTimeout: true,
    },
  });
  return new Ec2Api({ sdk, client, config, clock: options.clock ?? realClock });
}

/** The EC2 actions that the provider uses: each throws a Fault of faults.ts, or the end of its call. */
export class Ec2Api {
  readonly #sdk: Sdk;
  readonly #client: Ec2.EC2Client;
  readonly #config: AwsConfig;
  readonly #clock: Clock;
  #gate: RequestGate | undefined;

  constructor(deps: {
    readonly sdk: Sdk;
    readonly client: Ec2.EC2Client;
    readonly config: AwsConfig;
    readonly clock: Clock;
  }) {
    this.#sdk = deps.sdk;
    this.#client = deps.client;
    this.#config = deps.config;
    this.#clock = deps.clock;
  }

  useGate(gate: RequestGate): void {
    this.#gate = gate;
  }

  /** @param admitted its share of the limits has been taken, for the first try */
  async runInstances(
    input: Ec2.RunInstancesCommandInput,
    call: Call,
    admitted = false,
  ): Promise<Ec2.RunInstancesCommandOutput> {
    const command = () => new this.#sdk.RunInstancesCommand(input);
    const cost = { instances: input.DryRun === true ? 0 : (input.MaxCount ?? 1), admitted };
    return this.#send("RunInstances", (o) => this.#client.send(command(), o), call, cost);
  }

  /** @param ids asked when the request may go: until then there may come more */
  async terminateInstances(
    ids: () => readonly string[],
    call: Call,
    more: { readonly DryRun?: boolean } = {},
  ): Promise<void> {
    let fixed: string[] | undefined;
    const command = () => {
      fixed ??= [...ids()]; // a repetition asks for the same
      return new this.#sdk.TerminateInstancesCommand({ InstanceIds: fixed, ...more });
    };
    await this.#send("TerminateInstances", (o) => this.#client.send(command(), o), call);
  }

  async createTags(id: string, tags: readonly Ec2.Tag[], call: Call): Promise<void> {
    const command = () => new this.#sdk.CreateTagsCommand({ Resources: [id], Tags: [...tags] });
    await this.#send("CreateTags", (o) => this.#client.send(command(), o), call);
  }

  async getConsoleOutput(input: Ec2.GetConsoleOutputCommandInput, call: Call): Promise<string | undefined> {
    const command = () => new this.#sdk.GetConsoleOutputCommand(input);
    return (await this.#send("GetConsoleOutput", (o) => this.#client.send(command(), o), call)).Output;
  }

  /** Complete or throws. */
  async describeInstances(filters: readonly Ec2.Filter[], call: Call): Promise<readonly Ec2.Instance[]> {
    const input = { Filters: [...filters], MaxResults: PAGE };
    return this.#all("DescribeInstances", call, async (NextToken, o) => {
      const reply = await this.#client.send(new this.#sdk.DescribeInstancesCommand({ ...input, NextToken }), o);
      return { items: reply.Reservations?.flatMap((r) => r.Instances ?? []), nextToken: reply.NextToken };
    });
  }

  async describeInstanceTypes(names: readonly string[], call: Call): Promise<readonly Ec2.InstanceTypeInfo[]> {
    const input = { Filters: [{ Name: "instance-type", Values: [...names] }], MaxResults: TYPES_PAGE };
    return this.#all("DescribeInstanceTypes", call, async (NextToken, o) => {
      const reply = await this.#client.send(new this.#sdk.DescribeInstanceTypesCommand({ ...input, NextToken }), o);
      return { items: reply.InstanceTypes, nextToken: reply.NextToken };
    });
  }

  async describeOfferings(names: readonly string[], call: Call): Promise<readonly Ec2.InstanceTypeOffering[]> {
    const Filters = [{ Name: "instance-type", Values: [...names] }];
    const input = { LocationType: "availability-zone" as const, Filters, MaxResults: PAGE };
    return this.#all("DescribeInstanceTypeOfferings", call, async (NextToken, o) => {
      const command = new this.#sdk.DescribeInstanceTypeOfferingsCommand({ ...input, NextToken });
      const reply = await this.#client.send(command, o);
      return { items: reply.InstanceTypeOfferings, nextToken: reply.NextToken };
    });
  }

  async describeImages(input: Ec2.DescribeImagesCommandInput, call: Call): Promise<readonly Ec2.Image[]> {
    return this.#all("DescribeImages", call, async (NextToken, o) => {
      const reply = await this.#client.send(new this.#sdk.DescribeImagesCommand({ ...input, NextToken }), o);
      return { items: reply.Images, nextToken: reply.NextToken };
    });
  }

  async describeSubnets(ids: readonly string[], call: Call): Promise<readonly Ec2.Subnet[]> {
    return this.#all("DescribeSubnets", call, async (NextToken, o) => {
      const command = new this.#sdk.DescribeSubnetsCommand({ SubnetIds: [...ids], NextToken });
      const reply = await this.#client.send(command, o);
      return { items: reply.Subnets, nextToken: reply.NextToken };
    });
  }

  async describeSecurityGroups(ids: readonly string[], call: Call): Promise<readonly Ec2.SecurityGroup[]> {
    return this.#all("DescribeSecurityGroups", call, async (NextToken, o) => {
      const command = new this.#sdk.DescribeSecurityGroupsCommand({ GroupIds: [...ids], NextToken });
      const reply = await this.#client.send(command, o);
      return { items: reply.SecurityGroups, nextToken: reply.NextToken };
    });
  }

  /** @throws Fault whose awsCode is InvalidVolume.NotFound when one is not there */
  async describeVolumes(ids: readonly string[], call: Call): Promise<readonly Ec2.Volume[]> {
    return this.#all("DescribeVolumes", call, async (NextToken, o) => {
      const reply = await this.#client.send(
        new this.#sdk.DescribeVolumesCommand({ VolumeIds: [...ids], NextToken }),
        o,
      );
      return { items: reply.Volumes, nextToken: reply.NextToken };
    });
  }

  async attachVolume(input: Ec2.AttachVolumeCommandInput, call: Call): Promise<void> {
    const command = () => new this.#sdk.AttachVolumeCommand(input);
    await this.#send("AttachVolume", (o) => this.#client.send(command(), o), call);
  }

  async detachVolume(input: Ec2.DetachVolumeCommandInput, call: Call): Promise<void> {
    const command = () => new this.#sdk.DetachVolumeCommand(input);
    await this.#send("DetachVolume", (o) => this.#client.send(command(), o), call);
  }

  async describeKeyPair(name: string, call: Call): Promise<void> {
    const command = () => new this.#sdk.DescribeKeyPairsCommand({ KeyNames: [name] });
    await this.#send("DescribeKeyPairs", (o) => this.#client.send(command(), o), call);
  }

  async describeLaunchTemplate(call: Call): Promise<readonly Ec2.LaunchTemplateVersion[]> {
    const { id, name, version = "$Default" } = this.#config.launchTemplate ?? {};
    const input = { LaunchTemplateId: id, LaunchTemplateName: name, Versions: [version] };
    return this.#all("DescribeLaunchTemplateVersions", call, async (NextToken, o) => {
      const command = new this.#sdk.DescribeLaunchTemplateVersionsCommand({ ...input, NextToken });
      const reply = await this.#client.send(command, o);
      return { items: reply.LaunchTemplateVersions, nextToken: reply.NextToken };
    });
  }

  /** Where the credentials come from is the SDK's business; that there are some is asked here. @throws Fault permission_denied */
  async accessKeyId(): Promise<string> {
    try {
      return (await this.#client.config.credentials()).accessKeyId;
    } catch (e) {
      throw toFault(e, "credentials", { region: this.#config.region });
    }
  }

  close(): void {
    this.#client.destroy();
  }

  /** All pages. A token that comes again would be an endless list, and a shortened one must not pass for a whole one. */
  async #all<T>(
    action: RequestFamilyName,
    call: Call,
    read: (token: string | undefined, options: { abortSignal: AbortSignal }) => Promise<Paged<T>>,
  ): Promise<T[]> {
    const found: T[] = [];
    const seen = new Set<string>();
    for (let token: string | undefined; ; ) {
      const page: Paged<T> = await this.#send(action, (o) => read(token, o), call);
      found.push(...(page.items ?? []));
      if (page.nextToken === undefined || page.nextToken === "") return found;
      if (seen.has(page.nextToken)) {
        throw toFault(Object.assign(new Error("the same NextToken came twice"), { name: "InternalError" }), action, {});
      }
      seen.add(page.nextToken);
      token = page.nextToken;
    }
  }

  /**
   * One request, repeated while it is throttled or not answered; each try waits for its turn at the account's limits. A
   * create carries its token, so repeating it is safe.
   */
  async #send<O>(
    family: RequestFamilyName,
    send: (options: { abortSignal: AbortSignal }) => Promise<O>,
    call: Call,
    { instances, admitted }: Cost = FREE,
  ): Promise<O> {
    for (let attempt = 0; ; attempt++) {
      if (call.signal.aborted) throw ended(call);
      const pass =
        admitted && attempt === 0
          ? this.#gate?.admitted(family, { instances })
          : await this.#gate?.enter(family, { instances }, call);
      try {
        const answer = await send({ abortSignal: call.signal });
        pass?.answered({ kind: "done" });
        return answer;
      } catch (e) {
        if (call.signal.aborted) throw ended(call, e);
        const fault = toFault(e, family, { region: this.#config.region });
        tell(pass, fault);
        if (!mayPass(fault) || attempt + 1 >= this.#config.attempts) throw fault;
        // The gate knows how long a throttled one has to wait.
        if (pass === undefined || kindOf(fault) !== "throttled")
          await sleepOn(this.#clock, waitMs(fault, attempt), call);
      }
    }
  }
}

function tell(pass: RequestPass | undefined, { context }: Fault): void {
  const { kind, retryAfterSaid } = context;
  const retryAfterMs = typeof retryAfterSaid === "number" ? retryAfterSaid : undefined;
  pass?.answered(kind === "throttled" ? { kind, retryAfterMs } : { kind: "done" });
}

function mayPass(fault: Fault): boolean {
  // After a refusal for the clock the SDK has learned how much it is off.
  return ["throttled", "transient", "clock"].includes(kindOf(fault) ?? "");
}

function waitMs(fault: Fault, attempt: number): number {
  const { retryAfterMs } = fault.context;
  const wait = backoffMs(attempt, BACKOFF_BASE_MS, BACKOFF_MAX_MS);
  return typeof retryAfterMs === "number" && kindOf(fault) === "throttled"
    ? Math.max(wait, retryAfterMs * Math.random())
    : wait;
}

import type * as Ebs from "@aws-sdk/client-ebs";
import type * as Ec2 from "@aws-sdk/client-ec2";
import type { Call } from "../../../src/base/call.ts";
import { type Clock, sleepOn } from "../../../src/base/clock.ts";
import type { Fault } from "../../../src/base/fault.ts";
import { backoffMs, ended } from "../../../src/base/retry.ts";
import { toFault } from "../faults.ts";
import type { PublishConfig } from "./config.ts";
import { mayPass, toEbsFault } from "./publish-faults.ts";

const CONNECT_TIMEOUT_MS = 3000;
const BACKOFF_BASE_MS = 300;
const BACKOFF_MAX_MS = 15_000;

interface Sdk {
  readonly ec2: typeof Ec2;
  readonly ebs: typeof Ebs;
}

type Options = { readonly abortSignal: AbortSignal };

/** Loads the SDK: nobody pays for it who does not publish. */
export async function openImagesApi(config: PublishConfig, clock: Clock): Promise<ImagesApi> {
  const [ec2, ebs] = await Promise.all([import("@aws-sdk/client-ec2"), import("@aws-sdk/client-ebs")]);
  return new ImagesApi({ ec2, ebs }, config, clock);
}

/** The requests that publishing needs; each is repeated while it is throttled or not answered, and throws a Fault. */
export class ImagesApi {
  readonly #sdk: Sdk;
  readonly #config: PublishConfig;
  readonly #clock: Clock;
  readonly #ec2: Ec2.EC2Client;
  readonly #ebs: Ebs.EBSClient;

  constructor(sdk: Sdk, config: PublishConfig, clock: Clock) {
    this.#sdk = sdk;
    this.#config = config;
    this.#clock = clock;
    const { region, endpoint, ebsEndpoint = endpoint, requestTimeoutMs: requestTimeout } = config;
    const requestHandler = { connectionTimeout: CONNECT_TIMEOUT_MS, requestTimeout, throwOnRequestTimeout: true };
    const common = { region, maxAttempts: 1, requestHandler };
    this.#ec2 = new sdk.ec2.EC2Client({ ...common, ...(endpoint === undefined ? {} : { endpoint }) });
    this.#ebs = new sdk.ebs.EBSClient({
      ...common,
      ...(ebsEndpoint === undefined ? {} : { endpoint: ebsEndpoint }),
      requestHandler: { ...requestHandler, httpsAgent: { maxSockets: config.uploads } },
    });
  }

  startSnapshot(input: Ebs.StartSnapshotCommandInput, call: Call): Promise<Ebs.StartSnapshotCommandOutput> {
    return this.#askEbs("StartSnapshot", (o) => this.#ebs.send(new this.#sdk.ebs.StartSnapshotCommand(input), o), call);
  }

  async putSnapshotBlock(input: Ebs.PutSnapshotBlockCommandInput, call: Call): Promise<void> {
    const put = (o: Options) => this.#ebs.send(new this.#sdk.ebs.PutSnapshotBlockCommand(input), o);
    await this.#askEbs("PutSnapshotBlock", put, call);
  }

  async completeSnapshot(input: Ebs.CompleteSnapshotCommandInput, call: Call): Promise<void> {
    const complete = (o: Options) => this.#ebs.send(new this.#sdk.ebs.CompleteSnapshotCommand(input), o);
    await this.#askEbs("CompleteSnapshot", complete, call);
  }

  /** This account's snapshots with a tag. */
  async snapshotsTagged(key: string, value: string, call: Call): Promise<readonly Ec2.Snapshot[]> {
    const Filters = [{ Name: `tag:${key}`, Values: [value] }];
    const found: Ec2.Snapshot[] = [];
    for (let NextToken: string | undefined; ; ) {
      const input = { OwnerIds: ["self"], Filters, MaxResults: 1000, NextToken };
      const describe = (o: Options) => this.#ec2.send(new this.#sdk.ec2.DescribeSnapshotsCommand(input), o);
      const reply: Ec2.DescribeSnapshotsCommandOutput = await this.#ask("DescribeSnapshots", describe, call);
      found.push(...(reply.Snapshots ?? []));
      if (reply.NextToken === undefined || reply.NextToken === "") return found;
      NextToken = reply.NextToken;
    }
  }

  /** @returns undefined when EC2 does not show it (yet) */
  async snapshot(id: string, call: Call): Promise<Ec2.Snapshot | undefined> {
    const input = { Filters: [{ Name: "snapshot-id", Values: [id] }] };
    const describe = (o: Options) => this.#ec2.send(new this.#sdk.ec2.DescribeSnapshotsCommand(input), o);
    return (await this.#ask("DescribeSnapshots", describe, call)).Snapshots?.[0];
  }

  /** This account's images that match a filter. */
  async images(name: string, values: readonly string[], call: Call): Promise<readonly Ec2.Image[]> {
    const input = { Owners: ["self"], Filters: [{ Name: name, Values: [...values] }] };
    const describe = (o: Options) => this.#ec2.send(new this.#sdk.ec2.DescribeImagesCommand(input), o);
    return (await this.#ask("DescribeImages", describe, call)).Images ?? [];
  }

  async registerImage(input: Ec2.RegisterImageCommandInput, call: Call): Promise<string> {
    const register = (o: Options) => this.#ec2.send(new this.#sdk.ec2.RegisterImageCommand(input), o);
    return (await this.#ask("RegisterImage", register, call)).ImageId ?? "";
  }

  async deregisterImage(id: string, call: Call): Promise<void> {
    const deregister = (o: Options) => this.#ec2.send(new this.#sdk.ec2.DeregisterImageCommand({ ImageId: id }), o);
    await this.#ask("DeregisterImage", deregister, call);
  }

  async deleteSnapshot(id: string, call: Call): Promise<void> {
    const remove = (o: Options) => this.#ec2.send(new this.#sdk.ec2.DeleteSnapshotCommand({ SnapshotId: id }), o);
    await this.#ask("DeleteSnapshot", remove, call);
  }

  async tag(id: string, tags: readonly Ec2.Tag[], call: Call): Promise<void> {
    const input = { Resources: [id], Tags: [...tags] };
    await this.#ask("CreateTags", (o) => this.#ec2.send(new this.#sdk.ec2.CreateTagsCommand(input), o), call);
  }

  /** Waits between two looks at something that takes its time. */
  async pause(call: Call): Promise<void> {
    await sleepOn(this.#clock, this.#config.pollMs, call);
  }

  close(): void {
    this.#ec2.destroy();
    this.#ebs.destroy();
  }

  #ask<O>(action: string, send: (options: Options) => Promise<O>, call: Call): Promise<O> {
    return this.#send(send, (e) => toFault(e, action, { region: this.#config.region }), call);
  }

  #askEbs<O>(action: string, send: (options: Options) => Promise<O>, call: Call): Promise<O> {
    return this.#send(send, (e) => toEbsFault(e, action, this.#config.region), call);
  }

  async #send<O>(send: (o: Options) => Promise<O>, fault: (thrown: unknown) => Fault, call: Call): Promise<O> {
    for (let attempt = 0; ; attempt += 1) {
      if (call.signal.aborted) throw ended(call);
      try {
        return await send({ abortSignal: call.signal });
      } catch (e) {
        if (call.signal.aborted) throw ended(call, e);
        const read = fault(e);
        if (!mayPass(read) || attempt + 1 >= this.#config.attempts) throw read;
        await sleepOn(this.#clock, backoffMs(attempt, BACKOFF_BASE_MS, BACKOFF_MAX_MS), call);
      }
    }
  }
}

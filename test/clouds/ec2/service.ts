import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Dropped, FaultQueue, type InjectedFault } from "../faults.ts";
import { Ec2Account } from "./account.ts";
import { type ActionContext, authorize } from "./actions/action.ts";
import { ACTIONS } from "./actions/index.ts";
import { ApiError, notImplemented } from "./api-error.ts";
import { type Bucket, type Clock, realClock, TokenBucket } from "./clock.ts";
import { type SeenRequest, throwInjected } from "./fault-plan.ts";
import type { Ec2Model } from "./model.ts";
import { Params } from "./query.ts";
import { type Credentials, checkSignature, keyOf } from "./signature.ts";
import { renderError, renderReply, type XmlObject } from "./xml.ts";

export interface EndpointOptions {
  readonly region?: string;
  readonly clock?: Clock;
  readonly credentials?: readonly Credentials[];
  /** The published description of EC2: every request and reply is then held against it. */
  readonly model?: Ec2Model;
  /** First two bytes of the addresses in the account's subnets; "10.0" unless given. */
  readonly addressPrefix?: string;
}

const VERSION = "2016-11-15";
export const TEST_CREDENTIALS: Credentials = {
  accessKeyId: "AKIATESTTESTTESTTEST",
  secretAccessKey: "test/secret+key",
};

/** A request as it comes over the wire, whatever carries it. */
export interface WireRequest {
  readonly method: string;
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface WireReply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** EC2's Query API for one account in one region, without what carries it. */
export class Ec2Service {
  readonly account: Ec2Account;
  readonly credentials: Credentials[];
  /** Newest last. */
  readonly requests: SeenRequest[] = [];
  /** Replies of this endpoint that the published description does not allow: a test must find none. */
  readonly replyProblems: string[] = [];
  readonly #model: Ec2Model | undefined;
  readonly #clock: Clock;
  readonly #buckets = new Map<string, TokenBucket>();
  protected readonly faults = new FaultQueue();

  constructor(options: EndpointOptions = {}) {
    this.#clock = options.clock ?? realClock;
    const { region = "eu-west-1", addressPrefix } = options;
    this.account = new Ec2Account({
      region,
      clock: this.#clock,
      ...(addressPrefix === undefined ? {} : { addressPrefix }),
    });
    this.credentials = [...(options.credentials ?? [TEST_CREDENTIALS])];
    this.#model = options.model;
  }

  inject(fault: InjectedFault): void {
    this.faults.add(fault);
  }

  /** Requests of one action, or of all. */
  count(action?: string): number {
    return this.requests.filter((r) => action === undefined || r.action === action).length;
  }

  /** @returns undefined when the connection is to be closed without an answer */
  async answer(request: WireRequest): Promise<WireReply | undefined> {
    const form = new URLSearchParams(request.body);
    const action = form.get("Action") ?? "";
    const seen: SeenRequest = { action, parameters: new Map(form), accessKeyId: keyOf(request) };
    this.requests.push(seen);
    const fault = this.faults.next(action);
    const requestId = randomUUID();
    const headers = { "content-type": "text/xml;charset=UTF-8", "x-amzn-requestid": requestId };
    try {
      if (fault?.delayMs !== undefined && fault.afterEffect !== true) await delay(fault.delayMs);
      if (fault !== undefined && fault.afterEffect !== true) throwInjected(fault);
      const reply = await this.#answer(request, form);
      if (fault?.delayMs !== undefined && fault.afterEffect === true) await delay(fault.delayMs);
      if (fault !== undefined && fault.afterEffect === true) throwInjected(fault);
      return { status: 200, headers, body: renderReply(action, requestId, reply) };
    } catch (e) {
      if (e instanceof Dropped) {
        seen.outcome = "dropped";
        return undefined;
      }
      const error =
        e instanceof ApiError ? e : new ApiError("InternalError", e instanceof Error ? (e.stack ?? "") : String(e));
      if (!(e instanceof ApiError)) this.replyProblems.push(`${action}: ${error.message}`);
      seen.outcome = error.code;
      const retryAfter = fault?.error?.retryAfter;
      return {
        status: error.status,
        headers: { ...headers, ...(retryAfter === undefined ? {} : { "retry-after": retryAfter }) },
        body: renderError(error.code, error.message, requestId),
      };
    }
  }

  async #answer({ method, path, headers, body }: WireRequest, form: URLSearchParams): Promise<XmlObject> {
    if (method !== "POST" || path !== "/") throw notImplemented(`${method} ${path}`);
    const { region } = this.account;
    // Signatures are dated by the caller's real clock, whatever the clock of the account says.
    const signed = { region, service: "ec2", known: this.credentials, now: Date.now() } as const;
    checkSignature({ method, path, headers, body }, signed);
    const action = form.get("Action") ?? "";
    if (form.get("Version") !== VERSION)
      throw new ApiError("NoSuchVersion", `The version ${form.get("Version")} is not supported`);
    this.#throttle(action, form);
    this.#model?.checkRequest(action, form);
    const handler = ACTIONS.get(action);
    if (handler === undefined) {
      throw this.#model === undefined
        ? new ApiError("InvalidAction", `The action ${action} is not valid for this web service.`)
        : notImplemented(`the action ${action}`);
    }
    authorize(this.account, action);
    this.#refuseUnknownFilters(action, form);
    const params = Params.parse(form);
    params.text("Action");
    params.text("Version");
    const dryRun = params.flag("DryRun") ?? false;
    const endDryRun = (): void => {
      if (dryRun) throw new ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.");
    };
    const context: ActionContext = { account: this.account, params, endDryRun };
    if (action.startsWith("Describe")) endDryRun();
    // Read-only actions cannot leave an effect behind when a parameter that nobody read is refused afterwards.
    const reply = await this.#run(handler, context, action);
    for (const problem of this.#model?.checkReply(action, reply) ?? [])
      this.replyProblems.push(`${action}: ${problem}`);
    return reply;
  }

  async #run(
    handler: (c: ActionContext) => XmlObject | Promise<XmlObject>,
    context: ActionContext,
    action: string,
  ): Promise<XmlObject> {
    if (action.startsWith("Describe")) {
      const reply = await handler(context);
      this.#refuseUnread(context.params);
      return reply;
    }
    // The others are read to the end before their effect: that is where a dry run ends.
    const checked: ActionContext = {
      ...context,
      endDryRun: () => {
        this.#refuseUnread(context.params);
        context.endDryRun();
      },
    };
    return handler(checked);
  }

  #refuseUnread(params: Params): void {
    const [unread] = params.unread();
    if (unread === undefined) return;
    throw this.#model === undefined
      ? new ApiError("UnknownParameter", `The parameter ${unread} is not recognized`)
      : notImplemented(`the parameter ${unread}`);
  }

  #refuseUnknownFilters(action: string, form: URLSearchParams): void {
    if (this.#model === undefined) return;
    for (const [name, value] of form) {
      if (/^Filter\.\d+\.Name$/.test(name) && !this.#model.knowsFilter(action, value)) {
        throw new ApiError("InvalidParameterValue", `The filter '${value}' is invalid`);
      }
    }
  }

  /** A request that is throttled costs nothing; a launch takes as many of the resource tokens as it asks for. */
  #throttle(action: string, form: URLSearchParams): void {
    const { buckets, resourceBuckets } = this.account.knobs;
    const requests = this.#bucket(buckets.has(action) ? action : "*", buckets);
    const resources = this.#bucket(action, resourceBuckets, "resources/");
    const cost = action === "RunInstances" ? Number(form.get("MaxCount") ?? 1) : 0;
    const free = form.get("DryRun") === "true" || cost === 0;
    const enough = (requests?.has(1) ?? true) && (free || (resources?.has(cost) ?? true));
    if (!enough) throw new ApiError("RequestLimitExceeded", "Request limit exceeded.");
    requests?.take(1);
    if (!free) resources?.take(cost);
  }

  #bucket(name: string, sizes: ReadonlyMap<string, Bucket>, prefix = ""): TokenBucket | undefined {
    const size = sizes.get(name);
    if (size === undefined) return undefined;
    const bucket = this.#buckets.get(prefix + name) ?? new TokenBucket(size, this.#clock);
    this.#buckets.set(prefix + name, bucket);
    return bucket;
  }
}

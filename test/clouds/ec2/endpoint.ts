import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Ec2Account } from "./account.ts";
import { type ActionContext, authorize } from "./actions/action.ts";
import { ACTIONS } from "./actions/index.ts";
import { ApiError, notImplemented } from "./api-error.ts";
import { type Clock, realClock, TokenBucket } from "./clock.ts";
import type { Ec2Model } from "./model.ts";
import { Params } from "./query.ts";
import { type Credentials, checkSignature } from "./signature.ts";
import { renderError, renderReply, type XmlObject } from "./xml.ts";

/** Something that goes wrong with one of the next requests. */
export interface InjectedFault {
  /** Undefined = the next request, whichever it is. */
  readonly action?: string;
  /** After how many matching requests it happens; 0 = at the first. */
  readonly skip?: number;
  /** How often; 1 when not given. */
  readonly times?: number;
  /** The action takes effect before the fault. */
  readonly afterEffect?: boolean;
  /** Closes the connection instead of answering. */
  readonly drop?: boolean;
  /** Waits before it answers, ms. */
  readonly delayMs?: number;
  readonly error?: {
    readonly code: string;
    readonly message: string;
    readonly status?: number;
    readonly retryAfter?: string;
  };
}

/** A request that came in, and how it was answered. */
export interface SeenRequest {
  readonly action: string;
  readonly parameters: ReadonlyMap<string, string>;
  readonly accessKeyId: string;
  /** EC2's error code; undefined = it succeeded; "dropped" = no answer was given. */
  outcome?: string;
}

export interface EndpointOptions {
  readonly region?: string;
  readonly clock?: Clock;
  readonly credentials?: readonly Credentials[];
  /** The published description of EC2: every request and reply is then held against it. */
  readonly model?: Ec2Model;
}

const VERSION = "2016-11-15";
export const TEST_CREDENTIALS: Credentials = {
  accessKeyId: "AKIATESTTESTTESTTEST",
  secretAccessKey: "test/secret+key",
};

/** EC2's Query API over HTTP, for one account in one region, as an unmodified client sees it. */
export class Ec2Endpoint implements AsyncDisposable {
  readonly account: Ec2Account;
  readonly credentials: Credentials[];
  /** Newest last. */
  readonly requests: SeenRequest[] = [];
  /** Replies of this endpoint that the published description does not allow: a test must find none. */
  readonly replyProblems: string[] = [];
  readonly #model: Ec2Model | undefined;
  readonly #clock: Clock;
  readonly #server: Server;
  readonly #buckets = new Map<string, TokenBucket>();
  #faults: { fault: InjectedFault; skip: number; left: number }[] = [];

  private constructor(options: EndpointOptions) {
    this.#clock = options.clock ?? realClock;
    this.account = new Ec2Account({ region: options.region ?? "eu-west-1", clock: this.#clock });
    this.credentials = [...(options.credentials ?? [TEST_CREDENTIALS])];
    this.#model = options.model;
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((e: unknown) => response.destroy(e instanceof Error ? e : undefined));
    });
  }

  static async start(options: EndpointOptions = {}): Promise<Ec2Endpoint> {
    const endpoint = new Ec2Endpoint(options);
    await new Promise<void>((resolve) => endpoint.#server.listen(0, "127.0.0.1", resolve));
    return endpoint;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  inject(fault: InjectedFault): void {
    this.#faults.push({ fault, skip: fault.skip ?? 0, left: fault.times ?? 1 });
  }

  /** Requests of one action, or of all. */
  count(action?: string): number {
    return this.requests.filter((r) => action === undefined || r.action === action).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    const form = new URLSearchParams(body);
    const action = form.get("Action") ?? "";
    const seen: SeenRequest = { action, parameters: new Map(form), accessKeyId: keyOf(request) };
    this.requests.push(seen);
    const fault = this.#nextFault(action);
    const requestId = randomUUID();
    let answer: { readonly status: number; readonly xml: string };
    try {
      if (fault?.delayMs !== undefined && fault.afterEffect !== true) await delay(fault.delayMs);
      if (fault !== undefined && fault.afterEffect !== true) throwInjected(fault);
      const reply = await this.#answer(request, body, form);
      if (fault?.delayMs !== undefined && fault.afterEffect === true) await delay(fault.delayMs);
      if (fault !== undefined && fault.afterEffect === true) throwInjected(fault);
      answer = { status: 200, xml: renderReply(action, requestId, reply) };
    } catch (e) {
      if (e instanceof Dropped) {
        seen.outcome = "dropped";
        request.socket.destroy();
        return;
      }
      const error =
        e instanceof ApiError ? e : new ApiError("InternalError", e instanceof Error ? (e.stack ?? "") : String(e));
      if (!(e instanceof ApiError)) this.replyProblems.push(`${action}: ${error.message}`);
      seen.outcome = error.code;
      answer = { status: error.status, xml: renderError(error.code, error.message, requestId) };
      if (fault?.error?.retryAfter !== undefined) response.setHeader("Retry-After", fault.error.retryAfter);
    }
    response.writeHead(answer.status, { "Content-Type": "text/xml;charset=UTF-8", "x-amzn-requestid": requestId });
    response.end(answer.xml);
  }

  async #answer(request: IncomingMessage, body: string, form: URLSearchParams): Promise<XmlObject> {
    const { method = "", url = "/", headers } = request;
    if (method !== "POST" || url !== "/") throw notImplemented(`${method} ${url}`);
    const { region } = this.account;
    // Signatures are dated by the caller's real clock, whatever the clock of the account says.
    const signed = { region, known: this.credentials, now: Date.now() };
    checkSignature({ method, path: url, headers, body }, signed);
    const action = form.get("Action") ?? "";
    if (form.get("Version") !== VERSION)
      throw new ApiError("NoSuchVersion", `The version ${form.get("Version")} is not supported`);
    this.#throttle(action);
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

  #throttle(action: string): void {
    const { buckets } = this.account.knobs;
    const name = buckets.has(action) ? action : "*";
    const size = buckets.get(name);
    if (size === undefined) return;
    const bucket = this.#buckets.get(name) ?? new TokenBucket(size, this.#clock);
    this.#buckets.set(name, bucket);
    if (!bucket.take()) throw new ApiError("RequestLimitExceeded", "Request limit exceeded.");
  }

  #nextFault(action: string): InjectedFault | undefined {
    const entry = this.#faults.find(({ fault }) => fault.action === undefined || fault.action === action);
    if (entry === undefined) return undefined;
    if (entry.skip > 0) {
      entry.skip--;
      return undefined;
    }
    entry.left--;
    if (entry.left <= 0) this.#faults = this.#faults.filter((e) => e !== entry);
    return entry.fault;
  }
}

class Dropped extends Error {}

function throwInjected(fault: InjectedFault): void {
  if (fault.drop === true) throw new Dropped();
  if (fault.error !== undefined) throw new ApiError(fault.error.code, fault.error.message, fault.error.status);
}

function keyOf(request: IncomingMessage): string {
  return /Credential=([^/]+)\//.exec(request.headers.authorization ?? "")?.[1] ?? "";
}

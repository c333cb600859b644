import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Dropped, type FaultQueue } from "../../faults.ts";
import type { Ec2Account } from "../account.ts";
import { ApiError } from "../api-error.ts";
import { type SeenRequest, throwInjected } from "../fault-plan.ts";
import { type Credentials, checkSignature, keyOf } from "../signature.ts";
import { OPERATIONS, type Route, routeOf } from "./operations.ts";
import type { RestModel } from "./rest-model.ts";
import type { RestReply, RestRequest } from "./wire.ts";

export interface EbsServiceDeps {
  readonly account: Ec2Account;
  readonly credentials: readonly Credentials[];
  readonly faults: FaultQueue;
  /** Requests are added here. */
  readonly requests: SeenRequest[];
  /** What the published description does not allow in a reply is added here. */
  readonly replyProblems: string[];
  readonly model: RestModel | undefined;
}

/** How the errors of signatures are called where JSON is spoken. Source: "Common errors" of the EBS direct APIs. */
const AUTH_ERRORS: Readonly<Record<string, readonly [code: string, status: number]>> = {
  AuthFailure: ["UnrecognizedClientException", 403],
  SignatureDoesNotMatch: ["InvalidSignatureException", 403],
  RequestExpired: ["InvalidSignatureException", 403],
  UnauthorizedOperation: ["AccessDeniedException", 403],
};

/** The EBS direct APIs for one account in one region. */
export class EbsService {
  readonly #deps: EbsServiceDeps;

  constructor(deps: EbsServiceDeps) {
    this.#deps = deps;
  }

  /** @returns undefined when the connection is to be closed without an answer */
  async answer(request: RestRequest): Promise<RestReply | undefined> {
    const { requests, faults, replyProblems } = this.#deps;
    const route = routeOf(request.method, request.path);
    const action = route?.operation ?? `${request.method} ${request.path}`;
    const parameters = new Map([...Object.entries(route?.uri ?? {}), ...(route?.query ?? [])]);
    const seen: SeenRequest = { action, parameters, accessKeyId: keyOf(request) };
    requests.push(seen);
    const fault = faults.next(action);
    const headers = { "content-type": "application/json", "x-amzn-requestid": randomUUID() };
    try {
      if (fault?.delayMs !== undefined && fault.afterEffect !== true) await delay(fault.delayMs);
      if (fault !== undefined && fault.afterEffect !== true) throwInjected(fault);
      const reply = await this.#answer(request, route);
      if (fault?.delayMs !== undefined && fault.afterEffect === true) await delay(fault.delayMs);
      if (fault !== undefined && fault.afterEffect === true) throwInjected(fault);
      return { ...reply, headers: { ...headers, ...reply.headers } };
    } catch (e) {
      if (e instanceof Dropped) {
        seen.outcome = "dropped";
        return undefined;
      }
      if (!(e instanceof ApiError)) replyProblems.push(`${action}: ${e instanceof Error ? e.stack : String(e)}`);
      const error = e instanceof ApiError ? e : new ApiError("InternalServerException", String(e), 500);
      const [code, status] = AUTH_ERRORS[error.code] ?? [error.code, error.status];
      seen.outcome = code;
      const retryAfter = fault?.error?.retryAfter;
      return {
        status,
        headers: {
          ...{ ...headers, "x-amzn-errortype": code },
          ...(retryAfter === undefined ? {} : { "retry-after": retryAfter }),
        },
        body: JSON.stringify({
          Message: error.message,
          ...(error.reason === undefined ? {} : { Reason: error.reason }),
        }),
      };
    }
  }

  async #answer(request: RestRequest, route: Route | undefined): Promise<RestReply> {
    const { account, credentials, model, replyProblems } = this.#deps;
    const expected = { region: account.region, service: "ebs", known: credentials, now: Date.now() } as const;
    checkSignature({ ...request, headers: request.headers as Record<string, string> }, expected);
    if (route === undefined)
      throw new ApiError("UnknownOperationException", `${request.method} ${request.path} is not known`, 404);
    const { operation, uri, query } = route;
    const [problem] =
      model?.checkRequest(operation, { uri, query, headers: request.headers, body: request.body }) ?? [];
    if (problem !== undefined) throw new ApiError("ValidationException", problem);
    if (account.knobs.denied.has(operation))
      throw new ApiError("AccessDeniedException", `not allowed: ebs:${operation}`, 403, "UNAUTHORIZED_ACCOUNT");
    const handler = OPERATIONS[operation];
    const reply = await handler({ account, uri, query, headers: request.headers, body: request.body });
    const body = Buffer.from(reply.body);
    const lower = Object.fromEntries(Object.entries(reply.headers).map(([k, v]) => [k.toLowerCase(), v]));
    replyProblems.push(...(model?.checkReply(operation, reply.status, { headers: lower, body }) ?? []));
    return reply;
  }
}

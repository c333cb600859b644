import type { Call } from "../../src/base/call.ts";
import { type Clock, sleepOn } from "../../src/base/clock.ts";
import type { Fault } from "../../src/base/fault.ts";
import { backoffMs, ended, race } from "../../src/base/retry.ts";
import type { RequestGate, RequestPass } from "../../src/provider/index.ts";
import type { AzureConfig } from "./config.ts";
import { kindOf, toFault } from "./faults.ts";
import type { Headroom } from "./headroom.ts";
import type { RequestFamilyName } from "./request-families.ts";

const BACKOFF_BASE_MS = 200;
const BACKOFF_MAX_MS = 10_000;

/** What an answer says besides its body. */
export interface Answer {
  readonly status: number;
  header(name: string): string | undefined;
}

/** Passed to each operation of the SDK. */
export interface OperationOptions {
  abortSignal: AbortSignal;
  onResponse(response: { status: number; headers: { get(name: string): string | undefined } }): void;
}

export interface RequestOptions {
  /** VMs that the request makes. */
  readonly instances?: number;
  /** Its share of the limits has been taken, for the first try. */
  readonly admitted?: boolean;
}

type RequestConfig = Pick<AzureConfig, "attempts" | "location">;
type Page<T> = readonly T[] & { readonly continuationToken?: string };
export interface Pages<T> {
  byPage(settings?: { continuationToken?: string }): AsyncIterableIterator<Page<T>>;
}

/** How requests go to Azure: each waits for its turn at the account's limits and is repeated while that may help. */
export class ArmRequests {
  readonly #deps: { readonly config: RequestConfig; readonly clock: Clock; readonly headroom: Headroom };
  #gate: RequestGate | undefined;

  constructor(deps: { readonly config: RequestConfig; readonly clock: Clock; readonly headroom: Headroom }) {
    this.#deps = deps;
  }

  useGate(gate: RequestGate): void {
    this.#gate = gate;
  }

  /**
   * One request, repeated while it is throttled or not answered: everything that is asked here may be asked twice.
   * @param action for messages
   * @throws Fault of faults.ts, or the end of the call
   */
  async send<O>(
    family: RequestFamilyName,
    action: string,
    ask: (options: OperationOptions) => Promise<O>,
    call: Call,
    { instances = 0, admitted = false }: RequestOptions = {},
  ): Promise<{ readonly value: O; readonly answer: Answer }> {
    const { config, clock, headroom } = this.#deps;
    for (let attempt = 0; ; attempt++) {
      if (call.signal.aborted) throw ended(call);
      const hold = call.background === true ? headroom.waitMs(family) : 0;
      if (hold > 0) await sleepOn(clock, hold, call);
      const pass =
        admitted && attempt === 0
          ? this.#gate?.admitted(family, { instances })
          : await this.#gate?.enter(family, { instances }, call);
      let answer: Answer = { status: 0, header: () => undefined };
      const onResponse: OperationOptions["onResponse"] = ({ status, headers }) => {
        answer = { status, header: (name) => headers.get(name) };
        headroom.note(family, answer.header);
      };
      try {
        const value = await race(ask({ abortSignal: call.signal, onResponse }), call);
        pass?.answered({ kind: "done" });
        return { value, answer };
      } catch (e) {
        if (call.signal.aborted) throw ended(call, e);
        const fault = toFault(e, action, { region: config.location });
        tell(pass, fault);
        if (!mayPass(fault) || attempt + 1 >= config.attempts) throw fault;
        // The gate knows how long a throttled one has to wait.
        if (pass === undefined || kindOf(fault) !== "throttled") await sleepOn(clock, waitMs(fault, attempt), call);
      }
    }
  }

  /** All pages, or it throws: a shortened list must not pass for a whole one. */
  async all<T>(action: string, list: (options: OperationOptions) => Pages<T>, call: Call): Promise<readonly T[]> {
    const found: T[] = [];
    const seen = new Set<string>();
    for (let continuationToken: string | undefined; ; ) {
      const token = continuationToken;
      const { value: page } = await this.send(
        "read",
        action,
        async (options) => {
          const pages = list(options).byPage(token === undefined ? {} : { continuationToken: token });
          const next = await pages.next();
          return next.done === true ? undefined : next.value;
        },
        call,
      );
      found.push(...(page ?? []));
      continuationToken = page?.continuationToken;
      if (continuationToken === undefined || continuationToken === "") return found;
      if (seen.has(continuationToken)) {
        throw toFault(
          Object.assign(new Error("the same nextLink came twice"), { code: "InternalServerError" }),
          action,
          {},
        );
      }
      seen.add(continuationToken);
    }
  }
}

function tell(pass: RequestPass | undefined, { context }: Fault): void {
  const { kind, retryAfterSaid } = context;
  const retryAfterMs = typeof retryAfterSaid === "number" ? retryAfterSaid : undefined;
  pass?.answered(kind === "throttled" ? { kind, retryAfterMs } : { kind: "done" });
}

function mayPass(fault: Fault): boolean {
  return ["throttled", "transient"].includes(kindOf(fault) ?? "");
}

function waitMs(fault: Fault, attempt: number): number {
  const { retryAfterSaid } = fault.context;
  const wait = backoffMs(attempt, BACKOFF_BASE_MS, BACKOFF_MAX_MS);
  return typeof retryAfterSaid === "number" ? Math.max(wait, Math.min(retryAfterSaid, BACKOFF_MAX_MS)) : wait;
}

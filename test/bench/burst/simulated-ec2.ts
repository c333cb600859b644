import type { Transport } from "../../../providers/aws/index.ts";
import { type Clock, sleepOn } from "../../../src/base/clock.ts";
import { Ec2Service, type WireRequest } from "../../clouds/ec2/index.ts";
import type { VirtualClock } from "../../support/virtual-clock.ts";

/** EC2's published buckets. Source: EC2 developer guide, "Request throttling for the Amazon EC2 API". */
export const EC2_LIMITS = {
  launchRequests: { capacity: 5, refillPerSecond: 2 },
  launchInstances: { capacity: 1000, refillPerSecond: 2 },
  terminate: { capacity: 100, refillPerSecond: 5 },
  tag: { capacity: 100, refillPerSecond: 10 },
  describe: { capacity: 100, refillPerSecond: 20 },
} as const;

/** How long EC2 takes to answer, ms of virtual time: a guess at its usual times. */
const LATENCY_MS: Readonly<Record<string, number>> = { RunInstances: 1500, TerminateInstances: 400, CreateTags: 250 };
const OTHER_LATENCY_MS = 200;

interface SdkRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** An EC2 account with the published limits, on the simulation's clock, reached by an unmodified SDK without a network. */
export class SimulatedEc2 {
  readonly service: Ec2Service;
  readonly calls = new Map<string, number>();
  throttled = 0;
  readonly #clock: VirtualClock;

  constructor(clock: VirtualClock) {
    this.#clock = clock;
    this.service = new Ec2Service({ clock: { now: () => clock.now().getTime() } });
    const { knobs } = this.service.account;
    knobs.buckets
      .set("RunInstances", EC2_LIMITS.launchRequests)
      .set("TerminateInstances", EC2_LIMITS.terminate)
      .set("CreateTags", EC2_LIMITS.tag)
      .set("*", EC2_LIMITS.describe);
    knobs.resourceBuckets.set("RunInstances", EC2_LIMITS.launchInstances);
    knobs.pendingMs = 5_000;
    knobs.shuttingDownMs = 30_000;
  }

  get transport(): Transport {
    // Of the SDK's interface for what carries requests only this is used.
    return { handle: (request: SdkRequest, options: { abortSignal?: AbortSignal }) => this.#handle(request, options) };
  }

  totalCalls(): number {
    return [...this.calls.values()].reduce((sum, n) => sum + n, 0);
  }

  async #handle(
    { method, path, headers, body }: SdkRequest,
    { abortSignal }: { abortSignal?: AbortSignal },
  ): Promise<{ response: object }> {
    const call = { signal: abortSignal ?? new AbortController().signal };
    const text = typeof body === "string" ? body : Buffer.from((body ?? "") as Uint8Array).toString();
    const action = /(?:^|&)Action=([^&]+)/.exec(text)?.[1] ?? "";
    this.calls.set(action, (this.calls.get(action) ?? 0) + 1);
    const latency = LATENCY_MS[action] ?? OTHER_LATENCY_MS;
    await this.#wait(latency / 4, call);
    const wire: WireRequest = { method, path, headers: lowerCase(headers), body: text };
    const reply = await this.service.answer(wire);
    this.#clock.activity++;
    if (this.service.requests.at(-1)?.outcome === "RequestLimitExceeded") this.throttled++;
    this.service.requests.length = 0; // ten thousand pods' requests are a lot of memory
    await this.#wait((3 * latency) / 4, call);
    if (reply === undefined) throw Object.assign(new Error("connection closed"), { code: "ECONNRESET" });
    return { response: { statusCode: reply.status, headers: reply.headers, body: Buffer.from(reply.body) } };
  }

  async #wait(ms: number, call: { readonly signal: AbortSignal }): Promise<void> {
    await sleepOn(this.#clock as Clock, ms, call);
    this.#clock.activity++;
  }
}

function lowerCase(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

import type { Call } from "../base/call.ts";

/** A token bucket as clouds publish it: `burst` at once when it is full, `perSecond` for ever. */
export interface RateLimit {
  readonly burst: number;
  readonly perSecond: number;
}

/** Limits that requests of one family share. */
export interface RequestFamily {
  /** Each request takes 1. */
  readonly requests: RateLimit;
  /** Each request takes as many as it asks for instances; undefined = not limited. */
  readonly instances?: RateLimit;
}

/**
 * Asked before each request that goes to the cloud, and told how it was answered. The adaptor has one per account: the
 * provider says what a request is, the adaptor decides when it may go.
 */
export interface RequestGate {
  /** Resolves when a request of this family may go. @throws the call's end */
  enter(family: string, cost: RequestCost, call: Call): Promise<RequestPass>;
  /** For a request whose share was taken before (`InstanceBatch.admitted`). */
  admitted(family: string, cost: RequestCost): RequestPass;
}

/** One request that may go. */
export interface RequestPass {
  /** `throttled`: it was refused for want of tokens, though the gate had let it through. */
  answered(answer: RequestAnswer): void;
}

export interface RequestCost {
  /** That the request makes; 0 for all others. */
  readonly instances: number;
}

export type RequestAnswer =
  | { readonly kind: "done" }
  | { readonly kind: "throttled"; readonly retryAfterMs?: number | undefined };

/** What the cloud limits per account, for a provider that has such limits. */
export interface CloudAccount {
  /** The published limits by family, one family being what shares a bucket. */
  readonly families: Readonly<Record<string, RequestFamily>>;
  /** Creates count against this one. */
  readonly createFamily: string;
  /** All instances are not listed more often than this, ms: it costs requests that creates and deletes need. */
  readonly listIntervalMs: number;
  /** From now on every request asks there first. Before, they go unasked. */
  useGate(gate: RequestGate): void;
}

/**
 * What an error means for whoever decides what to do next, in `context.kind` of a provider's Fault. `throttled` and
 * `transient` pass by themselves; the shortages are reasons to try another place; `auth` and `setup` need an operator,
 * `bad-request` another request. Faults without a kind are taken by their code. A throttled Fault also has
 * `context.retryAfterMs`.
 */
export type FaultKind = "throttled" | "transient" | Shortage | "auth" | "setup" | "bad-request";

/** Why a place has no room: its pool of machines, its offer, an account's quota, its subnet's addresses. */
export type Shortage = "capacity" | "not-offered" | "quota" | "subnet-full";

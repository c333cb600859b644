import type { Instance as Ec2Instance } from "@aws-sdk/client-ec2";
import { type Call, withDeadline } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import { race } from "../../src/base/retry.ts";
import type { Ec2Api } from "./ec2-api.ts";

/** Most values that one filter may have. Source: EC2 API reference, "FilterLimitExceeded". */
const BATCH = 200;
const TIMEOUT_MS = 60_000;

interface Batch {
  readonly ids: Set<InstanceId>;
  readonly result: Promise<ReadonlyMap<string, Ec2Instance>>;
}

/**
 * Answers questions about single instances with as few requests as there can be: all that are asked within a short
 * window go into one. By filter and not by id, since one unknown id would fail the question about all others.
 */
export class InstanceReader {
  readonly #api: Ec2Api;
  readonly #windowMs: number;
  readonly #clock: Clock;
  #open: Batch | undefined;

  constructor(deps: { readonly api: Ec2Api; readonly windowMs: number; readonly clock: Clock }) {
    this.#api = deps.api;
    this.#windowMs = deps.windowMs;
    this.#clock = deps.clock;
  }

  async read(id: InstanceId, call: Call): Promise<Ec2Instance | undefined> {
    if (this.#open === undefined || this.#open.ids.size >= BATCH) this.#open = this.#begin();
    this.#open.ids.add(id);
    return (await race(this.#open.result, call)).get(id);
  }

  #begin(): Batch {
    const ids = new Set<InstanceId>();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#clock.after(this.#windowMs, resolve);
    const batch: Batch = {
      ids,
      result: promise.then(async () => {
        if (this.#open === batch) this.#open = undefined;
        const found = await this.#api.describeInstances(
          [{ Name: "instance-id", Values: [...ids] }],
          withDeadline(TIMEOUT_MS), // of all who wait, whoever of them gives up
        );
        return new Map(found.map((i) => [i.InstanceId ?? "", i]));
      }),
    };
    return batch;
  }
}

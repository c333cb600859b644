import { randomUUID } from "node:crypto";
import type { ArmError } from "./arm-error.ts";
import { renderError } from "./arm-error.ts";
import type { Json } from "./body.ts";

export type OperationStatus = "InProgress" | "Succeeded" | "Failed" | "Canceled";

export interface OperationSpec {
  /** Who is asked for its state: it is part of the address. */
  readonly namespace: "Microsoft.Compute" | "Microsoft.Network";
  readonly location: string;
  readonly apiVersion: string;
  /** ms since the epoch at which it ends; undefined = never. */
  readonly dueAt: number | undefined;
  /** Has to have happened too. */
  readonly ready?: () => boolean;
  /** Its effect when it ends well. @returns its output @throws ArmError when it fails, with no effect but its own */
  readonly finish: () => Json | undefined;
  /** Undoes what is half done when it fails or is preempted. */
  readonly fail?: (error: ArmError) => void;
}

/** A long-running operation of the service. It moves on only when looked at, by the clock of the account. */
export class Operation {
  readonly id = randomUUID();
  readonly spec: OperationSpec;
  readonly startedAt: number;
  status: OperationStatus = "InProgress";
  endedAt: number | undefined;
  error: ArmError | undefined;
  output: Json | undefined;

  constructor(spec: OperationSpec, now: number) {
    this.spec = spec;
    this.startedAt = now;
  }

  /** Ends it when its time has come. */
  settle(now: number): void {
    const { dueAt, ready, finish } = this.spec;
    if (this.status !== "InProgress" || dueAt === undefined || now < dueAt || ready?.() === false) return;
    try {
      this.output = finish();
      this.#end("Succeeded", now);
    } catch (e) {
      this.abort(e as ArmError, now);
    }
  }

  abort(error: ArmError, now: number, status: "Failed" | "Canceled" = "Failed"): void {
    if (this.status !== "InProgress") return;
    this.error = error;
    this.#end(status, now);
    this.spec.fail?.(error);
  }

  /** The status document. Source: ARM RPC "async-api-reference", Azure-AsyncOperation resource format. */
  render(): Readonly<Record<string, Json>> {
    const { output, error } = this;
    const compute = this.spec.namespace === "Microsoft.Compute";
    return {
      ...(compute && { startTime: new Date(this.startedAt).toISOString() }),
      ...(compute && this.endedAt !== undefined && { endTime: new Date(this.endedAt).toISOString() }),
      ...(compute && output !== undefined && { properties: { output } }),
      status: this.status,
      ...(error && (renderError(error) as unknown as { error: Json })),
      ...(compute && { name: this.id }),
    };
  }

  #end(status: OperationStatus, now: number): void {
    this.status = status;
    this.endedAt = now;
  }
}

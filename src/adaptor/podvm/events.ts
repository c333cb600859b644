import type { Logger } from "../../base/log.ts";

/** What an operator may want to hear of, once. */
export type EventKind =
  | "RecoveryOpen"
  | "RecoveryOver"
  | "NodeSilent"
  | "NodeForgotten"
  | "InstanceLost"
  | "MassLoss"
  | "OrphanRemoved"
  | "DeleteStuck"
  | "NodeRootfsAllowed";

export interface AdaptorEvent {
  /** RFC 3339 */
  readonly at: string;
  readonly kind: EventKind;
  readonly message: string;
  readonly sandbox?: string;
  readonly instance?: string | undefined;
  readonly node?: string;
  readonly operation?: string;
}

/** Pod of a sandbox. */
export interface PodName {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

export interface EventsDeps {
  readonly log: Logger;
  readonly now: () => Date;
  /** Told of each as it is noted. */
  readonly onEvent?: ((event: AdaptorEvent) => void) | undefined;
}

const KEPT = 200;

/** The last events of this adaptor, newest last. Each is logged too; they do not outlive the process. */
export class Events {
  readonly #deps: EventsDeps;
  readonly #kept: AdaptorEvent[] = [];

  constructor(deps: EventsDeps) {
    this.#deps = deps;
  }

  note(kind: EventKind, about: Omit<AdaptorEvent, "at" | "kind" | "message">, message: string): void {
    this.#deps.log.warn({ event: kind, ...about }, message);
    const event = { at: this.#deps.now().toISOString(), kind, message, ...about };
    this.#kept.push(event);
    if (this.#kept.length > KEPT) this.#kept.shift();
    this.#deps.onEvent?.(event);
  }

  list(): readonly AdaptorEvent[] {
    return [...this.#kept];
  }
}

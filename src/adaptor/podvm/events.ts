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
  | "DeleteStuck";

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

const KEPT = 200;

/** The last events of this adaptor, newest last. Each is logged too; they do not outlive the process. */
export class Events {
  readonly #deps: { readonly log: Logger; readonly now: () => Date };
  readonly #kept: AdaptorEvent[] = [];

  constructor(deps: { readonly log: Logger; readonly now: () => Date }) {
    this.#deps = deps;
  }

  note(kind: EventKind, about: Omit<AdaptorEvent, "at" | "kind" | "message">, message: string): void {
    this.#deps.log.warn({ event: kind, ...about }, message);
    this.#kept.push({ at: this.#deps.now().toISOString(), kind, message, ...about });
    if (this.#kept.length > KEPT) this.#kept.shift();
  }

  list(): readonly AdaptorEvent[] {
    return [...this.#kept];
  }
}

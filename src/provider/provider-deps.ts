import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";

/** What a provider gets of the process that it is in. */
export interface ProviderDeps {
  readonly log: Logger;
  readonly now: () => Date;
  /** For waits; the machine's own unless given. */
  readonly clock?: Clock;
}

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { CertificateAuthority } from "../../identity/index.ts";
import type { Provider } from "../../provider/index.ts";
import type { CircuitBreaker } from "../capacity/index.ts";
import type { OperationQueue } from "../operation/index.ts";
import type { AdaptorStore } from "../store/index.ts";
import type { Launches } from "./batch/launches.ts";
import type { Events } from "./events.ts";
import type { VmDefaults } from "./instance-spec.ts";
import type { Limits } from "./limits.ts";
import type { NodeSessions } from "./node-sessions.ts";
import type { Recovery } from "./recovery.ts";
import type { StockGuests } from "./stock-guests.ts";

/** What the pod VM service and its operations work with. */
export interface PodVmDeps {
  readonly store: AdaptorStore;
  readonly queue: OperationQueue;
  readonly provider: Provider;
  readonly ca: CertificateAuthority;
  /** Refuses pods whose VMs only fail. */
  readonly breaker?: CircuitBreaker | undefined;
  readonly limits: Limits;
  readonly sessions: NodeSessions;
  readonly recovery: Recovery;
  readonly events: Events;
  readonly log: Logger;
  readonly now: () => Date;
  /** For waits; the machine's own unless given. */
  readonly clock?: Clock | undefined;
  /** Present: the provider makes many VMs with one request, and creates go through here. */
  readonly launches?: Launches | undefined;
  readonly cluster: string;
  readonly defaults: VmDefaults;
  /** The same for every VM, and no secret. */
  readonly userData: (volumes?: readonly string[]) => Uint8Array;
  /** VMs with the stock image have user-data of their own. */
  readonly stock: StockGuests;
  /** How long a guest's fingerprint is looked for on its console, ms. */
  readonly consoleWaitMs: number;
}

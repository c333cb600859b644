import type { Logger } from "../../base/log.ts";
import type { PodNetwork } from "../../podnetwork/index.ts";
import type { Relay } from "../../relay/index.ts";
import type { Hypervisor } from "../../shim/hypervisor/index.ts";
import type { StockConfig } from "./config.ts";
import type { StockStates } from "./stock-state.ts";
import type { StockTls } from "./stock-tls.ts";

/** What serves the pods of stock shims. */
export interface StockDeps {
  readonly config: StockConfig;
  readonly tls: StockTls;
  readonly hypervisor: Hypervisor;
  readonly relay: Pick<
    Relay,
    | "connectGuest"
    | "disconnectGuest"
    | "declareLost"
    | "guestLost"
    | "openAgentSocket"
    | "closeAgentSocket"
    | "agentSocketUse"
  >;
  /** None: pods have their own localhost only, and the stock image cannot be used. */
  readonly podNetwork: PodNetwork | undefined;
  readonly states: StockStates;
  readonly guestLostAfterMs: number;
  /** Between looks for pods that no shim is connected to, ms; for tests. */
  readonly lookMs?: number | undefined;
  readonly log: Logger;
}

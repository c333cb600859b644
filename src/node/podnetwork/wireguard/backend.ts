import type { Call } from "../../../base/call.ts";
import type { WireguardKey, WireguardPeer } from "../../../podnetwork/index.ts";
import type { WireguardKind } from "./probe.ts";

/** A pod's WireGuard link: in the pod's namespace, with its UDP socket in the host's. */
export interface LinkPlace {
  readonly sandboxId: string;
  readonly netnsPath: string;
}

/** One way to have WireGuard links. */
export interface WireguardBackend {
  readonly kind: WireguardKind;
  /** Bytes at the end of the path that its links leave alone. */
  readonly reserveBytes: number;
  /** The link is there with this key, and with the peers that it had. Repeatable. @throws Fault with the remedy */
  ensure(place: LinkPlace, privateKey: WireguardKey, call: Call): Promise<void>;
  /** The link has this peer and no other. @throws Fault */
  setPeer(place: LinkPlace, peer: WireguardPeer, call: Call): Promise<void>;
  /** Whether whatever carries the link's packets is there. */
  isAlive(place: LinkPlace): Promise<boolean>;
  /** Nothing of the link is left, whether or not its namespace is still there. */
  remove(place: LinkPlace, call: Call): Promise<void>;
}

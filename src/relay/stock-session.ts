import { X509Certificate } from "node:crypto";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { UnaryCaller } from "../ttrpc/index.ts";
import { fingerprintOfKey } from "./csr.ts";
import { agentServes } from "./guest-session.ts";
import type { GuestFacts, GuestSpec, StockGuestSpec } from "./relay.ts";
import type { DialedPeer } from "./tls-dial.ts";

/**
 * A guest with the stock forwarder: it was given its key at boot, so there is nothing to enrol and nothing to configure.
 * It is the guest when it shows the one certificate that was made for it, or, with the operator's certificates, one that
 * leads to their CA and has the name that they agreed on.
 * Source: wire contract §3.8.
 */
export class StockSession {
  readonly established = true;
  readonly #spec: GuestSpec;
  readonly #pin: string | undefined;

  constructor(spec: GuestSpec, stock: StockGuestSpec) {
    this.#spec = spec;
    const { certificatePem } = stock;
    this.#pin = certificatePem && fingerprintOfKey(new X509Certificate(certificatePem).publicKey);
  }

  /** @throws Fault permission_denied when the peer is another */
  verify(peer: DialedPeer): void {
    if (peer.resumed) return;
    const { sandboxId } = this.#spec;
    if (this.#pin !== undefined && peer.key !== this.#pin) {
      const message = `${peer.address} answers with another key than the one that was made for this pod VM: its address was taken over, or its user-data did not reach it`;
      throw new Fault("permission_denied", message, { sandboxId });
    }
    if (this.#pin === undefined && !peer.signed) {
      const message = `${peer.address} shows no certificate of the operator's CA with the name ${this.#spec.stock?.serverName}: the image's certificates and stock.tls do not belong together`;
      throw new Fault("permission_denied", message, { sandboxId });
    }
  }

  /** Resolves when the agent serves. @throws StatusError | Fault when it does not within the call */
  async establish(_peer: DialedPeer, connection: UnaryCaller, call: Call): Promise<GuestFacts> {
    await agentServes(connection, call);
    const verifiedBy = this.#pin === undefined ? "operator's certificate" : "certificate in user-data";
    return { bootId: "", kernelRelease: "", guestVersion: "", listeningMs: 0, verifiedBy };
  }
}

/**
 * What must not be sent again when its answer was lost, since the stock agent does not recognise a repeated request.
 * Everything else reads, waits, or comes to the same when done twice.
 */
const ONCE: ReadonlySet<string> = new Set([
  "CreateSandbox",
  "DestroySandbox",
  "CreateContainer",
  "StartContainer",
  "RemoveContainer",
  "ExecProcess",
  "WriteStdin",
]);

/** Whether a call to a stock agent may go out again. */
export function mayRepeat(method: string): boolean {
  return !ONCE.has(method);
}

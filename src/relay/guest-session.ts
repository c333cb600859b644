import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { sleep } from "../base/retry.ts";
import { CheckRequest, HealthCheckResponse, HealthDefinition } from "../gen/agent/health.ts";
import { type ConfigureRequest, GuestDefinition } from "../gen/kataremote/guest/v1/guest.ts";
import { Code, createClient, StatusError, type UnaryCaller } from "../ttrpc/index.ts";
import { fingerprintOfCsr } from "./csr.ts";
import type { GuestFacts, GuestSpec } from "./relay.ts";
import type { DialedPeer } from "./tls-dial.ts";

/** HealthCheckResponse.ServingStatus. */
const SERVING = 1;
/** Budget of one call of the handshake, ms: a guest under software emulation takes its time, a dead one none. */
const STEP_MS = 10_000;

/**
 * Who the guest is, over all connections to it: its key is pinned when it enrols; from Configure's answer on it has
 * to show that key in a certificate of our CA.
 */
export class GuestSession {
  readonly #spec: GuestSpec;
  #pin: string | undefined;
  #certificatePem: string | undefined;
  #verifiedBy = "";
  #configured = false;

  constructor(spec: GuestSpec) {
    this.#spec = spec;
  }

  /** @throws Fault permission_denied when the peer is not the guest that enrolled */
  verify(peer: DialedPeer): void {
    if (this.#pin === undefined || peer.resumed) return;
    if (peer.key !== this.#pin) {
      throw new Fault(
        "permission_denied",
        `${peer.address} answers with another key than the pod VM that enrolled: its address was taken over`,
        {
          sandboxId: this.#spec.sandboxId,
        },
      );
    }
    if (this.#configured && !peer.signed) {
      throw new Fault("permission_denied", `${peer.address} shows a certificate that our CA did not sign`, {
        sandboxId: this.#spec.sandboxId,
      });
    }
  }

  /** A ticket is only worth keeping from a peer that was checked in full. */
  get established(): boolean {
    return this.#configured;
  }

  /**
   * Enrols and configures as far as that has not happened yet; may be repeated on another connection.
   * @throws Fault permission_denied | already_exists (for good); StatusError | Fault unavailable (try again)
   */
  async establish(peer: DialedPeer, connection: UnaryCaller, call: Call): Promise<void> {
    if (this.#configured) return;
    const guest = createClient(GuestDefinition, connection);
    const options = { signal: call.signal, timeoutMs: STEP_MS };
    if (this.#certificatePem === undefined) {
      const { csrPem } = await guest.enroll({}, options).catch((e: unknown) => {
        throw claimed(e, this.#spec, peer.address);
      });
      if (fingerprintOfCsr(csrPem) !== peer.key) {
        throw new Fault("permission_denied", `${peer.address} asks to sign a key that is not its own`, {
          sandboxId: this.#spec.sandboxId,
        });
      }
      const signed = await this.#spec.sign(csrPem, call).catch((e: unknown) => {
        throw notSigned(e, this.#spec);
      });
      this.#pin = peer.key;
      this.#certificatePem = signed.certificatePem;
      this.#verifiedBy = signed.verifiedBy;
      this.#spec.onStage?.("enrolled");
    }
    const request: ConfigureRequest = {
      sandboxId: this.#spec.sandboxId,
      certificatePem: this.#certificatePem,
      nowUnixNano: BigInt(Date.now()) * 1_000_000n,
      hostname: this.#spec.hostname,
      podNetworkJson: this.#spec.podNetworkJson ?? "",
    };
    await guest.configure(request, options);
    this.#configured = true;
    this.#spec.onStage?.("configured");
  }

  async facts(connection: UnaryCaller, call: Call): Promise<GuestFacts> {
    const guest = createClient(GuestDefinition, connection);
    const info = await guest.info({}, { signal: call.signal, timeoutMs: STEP_MS });
    return {
      bootId: info.bootId,
      kernelRelease: info.kernelRelease,
      guestVersion: info.guestVersion,
      listeningMs: Number(info.listeningMs),
      verifiedBy: this.#verifiedBy,
    };
  }
}

/** Resolves when the agent says SERVING. @throws StatusError | Fault when it does not within the call */
export async function agentServes(connection: UnaryCaller, call: Call): Promise<void> {
  while ((await checkHealth(connection, STEP_MS, call)) !== SERVING) await sleep(100, call);
}

/** One Health.Check; gives the status it answered. */
export async function checkHealth(connection: UnaryCaller, timeoutMs: number, call: Call): Promise<number> {
  const payload = CheckRequest.encode({ service: "" }).finish();
  const reply = await connection.call(HealthDefinition.fullName, "Check", payload, { signal: call.signal, timeoutMs });
  return HealthCheckResponse.decode(reply).status;
}

function claimed(e: unknown, spec: GuestSpec, address: string): unknown {
  if (!(e instanceof StatusError) || e.code !== Code.failedPrecondition) return e;
  return new Fault(
    "already_exists",
    `the pod VM at ${address} was configured by somebody else before us: it is refused`,
    { sandboxId: spec.sandboxId },
    { cause: e },
  );
}

/** The signer has retried as long as it makes sense: dialling the guest again would not help. */
function notSigned(e: unknown, spec: GuestSpec): Fault {
  const message = "the pod VM's key was not signed";
  return new Fault(Fault.from(e).code, message, { sandboxId: spec.sandboxId }, { cause: e, retryable: false });
}

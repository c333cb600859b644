import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { sleep } from "../base/retry.ts";
import { CheckRequest, HealthCheckResponse, HealthDefinition } from "../gen/agent/health.ts";
import { type ConfigureRequest, GuestDefinition, type InfoResponse } from "../gen/kataremote/guest/v1/guest.ts";
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
  #tunnelKey = "";
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
   * Enrols and configures as far as that has not happened yet, and waits until the agent serves; may be repeated on another
   * connection. What is asked after Configure goes out with it: the guest takes it in that order.
   * @throws Fault permission_denied | already_exists (for good); StatusError | Fault unavailable (try again)
   */
  async establish(peer: DialedPeer, connection: UnaryCaller, call: Call): Promise<GuestFacts> {
    let configured = Promise.resolve();
    if (!this.#configured) configured = this.#configure(await this.#enroll(peer, connection, call), connection, call);
    const served = agentServes(connection, call);
    const options = { signal: call.signal, timeoutMs: 2 * STEP_MS };
    const asked = createClient(GuestDefinition, connection).info({}, options);
    // When Configure fails, that is the reason.
    for (const beside of [served, asked]) beside.catch(() => undefined);
    await configured;
    await served.catch(() => agentServes(connection, call));
    return this.#facts(await asked);
  }

  async #enroll(peer: DialedPeer, connection: UnaryCaller, call: Call): Promise<string> {
    if (this.#certificatePem !== undefined) return this.#certificatePem;
    const options = { signal: call.signal, timeoutMs: STEP_MS };
    const { sandboxId } = this.#spec;
    const { csrPem } = await createClient(GuestDefinition, connection)
      .enroll({}, options)
      .catch((e: unknown) => {
        throw claimed(e, this.#spec, peer.address);
      });
    if (fingerprintOfCsr(csrPem) !== peer.key)
      throw new Fault("permission_denied", `${peer.address} asks to sign a key that is not its own`, { sandboxId });
    const signed = await this.#spec.sign(csrPem, call).catch((e: unknown) => {
      throw notSigned(e, this.#spec);
    });
    this.#pin = peer.key;
    this.#certificatePem = signed.certificatePem;
    this.#verifiedBy = signed.verifiedBy;
    this.#spec.onStage?.("enrolled");
    return signed.certificatePem;
  }

  async #configure(certificatePem: string, connection: UnaryCaller, call: Call): Promise<void> {
    const request: ConfigureRequest = {
      sandboxId: this.#spec.sandboxId,
      certificatePem,
      nowUnixNano: BigInt(Date.now()) * 1_000_000n,
      hostname: this.#spec.hostname,
      podNetworkJson: this.#spec.podNetworkJson ?? "",
    };
    const options = { signal: call.signal, timeoutMs: STEP_MS };
    ({ tunnelKey: this.#tunnelKey } = await createClient(GuestDefinition, connection).configure(request, options));
    this.#configured = true;
    this.#spec.onStage?.("configured");
  }

  #facts({ bootId, kernelRelease, guestVersion, listeningMs }: InfoResponse): GuestFacts {
    return {
      ...{ bootId, kernelRelease, guestVersion, listeningMs: Number(listeningMs), verifiedBy: this.#verifiedBy },
      ...(this.#tunnelKey === "" ? {} : { tunnelKey: this.#tunnelKey }),
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

import { Fault } from "../../base/fault.ts";
import type { SandboxId } from "../../base/ids.ts";
import { makeStockVmIdentity, nodeCommonName, type Sealer, signStockClient } from "../../identity/index.ts";
import type { Provider } from "../../provider/index.ts";
import { encodeInitdata, renderStockUserData } from "../../userdata/index.ts";
import type { SandboxRecord, StockRecord } from "../store/index.ts";
import { instanceName } from "./instance-spec.ts";
import type { CreateVm } from "./pod-vm-service.ts";
import type { StockGuestIdentity, StockGuestRequest } from "./stock-request.ts";

/** `auth.json` for a pod's images, when its pull secrets say something. */
export type PullSecretLookup = (pod: CreateVm["pod"]) => Promise<string | undefined>;

interface Sealed {
  /** base64 */
  readonly userData: string;
  readonly caPem?: string;
  readonly caKeyPem?: string;
}

/**
 * VMs with the stock image: their user-data is one pod's own and has a key in it, so it is made once, before anything is
 * asked of the cloud, and kept sealed in the record. A repeated create call then asks for the very same instance, and
 * whoever reads the store learns nothing by it.
 */
export class StockGuests {
  readonly #deps: {
    readonly sealer: Sealer;
    readonly provider: Pick<Provider, "name" | "secondInterface">;
    readonly now: () => Date;
    readonly pullSecrets?: PullSecretLookup | undefined;
    /** Rejects when adaptors of the same store could not open what that key seals. */
    readonly agreeOnKey?: ((keyId: string) => Promise<void>) | undefined;
  };

  constructor(deps: {
    readonly sealer: Sealer;
    readonly provider: Pick<Provider, "name" | "secondInterface">;
    readonly now: () => Date;
    readonly pullSecrets?: PullSecretLookup | undefined;
    readonly agreeOnKey?: ((keyId: string) => Promise<void>) | undefined;
  }) {
    this.#deps = deps;
  }

  /** @throws Fault failed_precondition (no second interface), invalid_argument (initdata), resource_exhausted (too much for the cloud) */
  async prepare(request: CreateVm, stock: StockGuestRequest): Promise<StockRecord> {
    const { sealer, provider, now, pullSecrets, agreeOnKey } = this.#deps;
    await agreeOnKey?.(await sealer.currentKey());
    if (wantsSecondInterface(stock.podNetwork) && provider.secondInterface !== true)
      throw new Fault(
        "failed_precondition",
        `pods are to reach their external network by a second interface of their VM, and provider ${provider.name} gives it none: configure one there, or leave stock.externalNetworkViaVm (EXTERNAL_NETWORK_VIA_PODVM) out`,
      );
    const { podNetwork, initdata, scratchSpace, operatorCertificates, tlsMinVersion, tlsCipherSuites } = stock;
    // The stock worker's name for the VM and for its certificate: of the sandbox as its shim calls it.
    const serverName = instanceName(request.pod.name, request.containerd.id);
    const identity = operatorCertificates ? undefined : makeStockVmIdentity(serverName, now());
    const authJson = await pullSecrets?.(request.pod);
    const userData = renderStockUserData(
      {
        podNetwork,
        pod: request.pod,
        scratchSpace,
        tlsCipherSuites,
        ...(identity === undefined ? {} : { tls: { ...identity, clientCaPem: identity.caPem } }),
        ...(tlsMinVersion === undefined ? {} : { tlsMinVersion }),
        ...(authJson === undefined ? {} : { authJson }),
        ...(initdata === undefined ? {} : { initdata: await encodeInitdata(initdata) }),
      },
      provider.name,
    );
    const secret: Sealed = {
      userData: Buffer.from(userData).toString("base64"),
      ...(identity === undefined ? {} : { caPem: identity.caPem, caKeyPem: identity.caKeyPem }),
    };
    const sealed = await sealer.seal(Buffer.from(JSON.stringify(secret)), request.id);
    return { serverName, sealed, ...(identity === undefined ? {} : { certificatePem: identity.certificatePem }) };
  }

  /** `auth.json` for a pod's images, whatever its image: only the stock one gets it in user-data. */
  async pullSecretsOf(pod: CreateVm["pod"]): Promise<string | undefined> {
    return await this.#deps.pullSecrets?.(pod);
  }

  /** Undefined for the reference image. @throws Fault failed_precondition when it cannot be opened any more */
  userDataOf(record: SandboxRecord): Uint8Array | undefined {
    return record.stock === undefined ? undefined : Buffer.from(this.#open(record.id, record.stock).userData, "base64");
  }

  /** @throws Fault failed_precondition when the sandbox's image is another, or has the operator's certificates */
  identify(record: SandboxRecord, publicKeyPem: string): StockGuestIdentity {
    const { stock, id, nodeId } = record;
    if (stock?.certificatePem === undefined) {
      const why = stock === undefined ? "its image is not the stock one" : "its image has the operator's certificates";
      throw new Fault("failed_precondition", `sandbox ${id} has no guest that we made a key for: ${why}`, {
        sandboxId: id,
      });
    }
    const { caPem = "", caKeyPem = "" } = this.#open(id, stock);
    const client = { publicKeyPem, commonName: nodeCommonName(nodeId) };
    return {
      serverName: stock.serverName,
      serverCertificatePem: stock.certificatePem,
      caPem,
      clientCertificatePem: signStockClient({ caPem, caKeyPem }, client, this.#deps.now()),
    };
  }

  #open(id: SandboxId, stock: StockRecord): Sealed {
    return JSON.parse(this.#deps.sealer.open(stock.sealed, id).toString("utf8")) as Sealed;
  }
}

/** The stock image only logs that it found none, and the pod lacks its network. Source: wire contract §3.5, §3.12 */
function wantsSecondInterface(podNetwork: object): boolean {
  return (podNetwork as { "external-net-via-pod-vm"?: unknown })["external-net-via-pod-vm"] === true;
}

import { Fault } from "../../base/fault.ts";
import type { StockGuest } from "../../gen/kataremote/podvm/v1/podvm.ts";
import type { StockGuestRequest } from "../podvm/index.ts";

/** Source of the values: wire contract §2.2. */
const TLS_VERSIONS = ["", "VersionTLS12", "VersionTLS13"];

/** What a CreateVm says of a VM with the stock image. @throws Fault invalid_argument naming the field */
export function readStock(stock: StockGuest): StockGuestRequest {
  const { podNetworkJson, initdataToml, tlsMinVersion, tlsCipherSuites, scratchSpace, operatorCertificates } = stock;
  if (!TLS_VERSIONS.includes(tlsMinVersion))
    throw new Fault(
      "invalid_argument",
      `stock.tls_min_version is "${tlsMinVersion}": VersionTLS12 or VersionTLS13 is possible`,
    );
  const wrong = tlsCipherSuites.find((name) => !/^TLS_[A-Z0-9_]{1,60}$/.test(name));
  if (wrong !== undefined)
    throw new Fault(
      "invalid_argument",
      `stock.tls_cipher_suites has "${wrong}", which is no IANA name of a cipher suite`,
    );
  return {
    podNetwork: readObject(podNetworkJson),
    ...(initdataToml === "" ? {} : { initdata: initdataToml }),
    scratchSpace,
    operatorCertificates,
    ...(tlsMinVersion === "" ? {} : { tlsMinVersion }),
    tlsCipherSuites,
  };
}

/** Its content is between the node and the forwarder. */
function readObject(text: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Fault("invalid_argument", "stock.pod_network_json is not JSON", {}, { cause });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new Fault("invalid_argument", "stock.pod_network_json is not an object");
  return value;
}

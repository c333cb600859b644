import { createPrivateKey, createPublicKey } from "node:crypto";
import {
  authorityExtensions,
  CLIENT_AUTH,
  issue,
  issuerOf,
  keyIdOf,
  leafExtensions,
  nameOf,
  SERVER_AUTH,
} from "./issue.ts";
import { newKeyPair } from "./keys.ts";

/** What one VM with the stock image is made with. Nothing of it is used for another VM. */
export interface StockVmIdentity {
  /** Signs this VM's server and the one node that may call it. */
  readonly caPem: string;
  readonly caKeyPem: string;
  /** The forwarder's. */
  readonly certificatePem: string;
  readonly keyPem: string;
}

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** Source: wire contract §3.8. */
const EARLIER_MS = 5 * MINUTE_MS;
const LATER_MS = 730 * DAY_MS;
const FORWARDER = "agent-protocol-forwarder";

/**
 * Keys and certificates for one VM whose forwarder is the stock one: it takes a finished server key, and lets in whoever
 * shows a certificate that leads to its client CA. Each VM has a CA of its own: what one of them gives away opens no other.
 * @param serverName The only name in the server's certificate (CN and DNS SAN)
 */
export function makeStockVmIdentity(serverName: string, now: Date): StockVmIdentity {
  const ca = newKeyPair();
  const server = newKeyPair();
  const spki = spkiOf(ca.publicKeyPem);
  const keyId = keyIdOf(spki);
  const caName = nameOf({ organization: "kata-remote", commonName: `pod VM CA ${keyId.toString("hex")}` });
  const issuer = { name: caName, key: createPrivateKey(ca.keyPem), keyId };
  const name = nameOf({ organization: FORWARDER, commonName: serverName });
  const validity = validityAt(now);
  return {
    caKeyPem: ca.keyPem,
    caPem: issue(issuer, { name: caName, spki, ...validity }, authorityExtensions(keyId, "certSign")),
    keyPem: server.keyPem,
    certificatePem: issue(
      issuer,
      { name, spki: spkiOf(server.publicKeyPem), ...validity },
      leafExtensions(SERVER_AUTH, { names: [serverName] }),
    ),
  };
}

/**
 * The certificate with which a node calls the VM: a client's, O=kata-remote, CN=`commonName`.
 * @param vm What makeStockVmIdentity gave for that VM
 */
export function signStockClient(
  vm: Pick<StockVmIdentity, "caPem" | "caKeyPem">,
  client: { readonly publicKeyPem: string; readonly commonName: string },
  now: Date,
): string {
  const issuer = issuerOf(vm.caPem, createPrivateKey(vm.caKeyPem));
  const name = nameOf({ organization: "kata-remote", commonName: client.commonName });
  return issue(issuer, { name, spki: spkiOf(client.publicKeyPem), ...validityAt(now) }, leafExtensions(CLIENT_AUTH));
}

function validityAt(now: Date): { readonly notBefore: number; readonly notAfter: number } {
  return { notBefore: now.getTime() - EARLIER_MS, notAfter: now.getTime() + LATER_MS };
}

function spkiOf(publicKeyPem: string): Buffer {
  return createPublicKey(publicKeyPem).export({ type: "spki", format: "der" });
}

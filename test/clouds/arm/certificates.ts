import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { CertificateAuthority, makeCsr, newKeyPair } from "../../../src/identity/index.ts";

/** For a server at 127.0.0.1 and ::1, all PEM. */
export interface TestCertificates {
  readonly ca: string;
  readonly key: string;
  readonly cert: string;
}

/** A certificate authority of its own that signs one server. Nobody trusts it: see trustInThisProcess, NODE_EXTRA_CA_CERTS. */
export async function testCertificates(
  names: readonly string[] = ["127.0.0.1", "localhost"],
): Promise<TestCertificates> {
  const folder = await mkdtemp(join(tmpdir(), "test-ca-"));
  try {
    const authority = await CertificateAuthority.open(folder);
    const { keyPem } = newKeyPair();
    return { ca: authority.caPem, key: keyPem, cert: await authority.signServer(makeCsr(keyPem, ""), names) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Has clients of this process trust an authority besides those it trusts already; other processes take NODE_EXTRA_CA_CERTS. */
export function trustInThisProcess(ca: string): void {
  tls.setDefaultCACertificates([...tls.getCACertificates("default"), ca]);
}

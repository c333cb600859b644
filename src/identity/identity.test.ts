import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";
import { CertificateAuthority, makeCsr, makeSelfSigned, newKeyPair, nodeIdOf, spkiFingerprint } from "./index.ts";

const SANDBOX = "5b8f3c0e-0000-4000-8000-000000000001";

describe("certificate authority", () => {
  let dir: string;
  let ca: CertificateAuthority;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "identity-"));
    ca = await CertificateAuthority.open(join(dir, "ca"));
  });
  after(() => rm(dir, { recursive: true }));

  it("keeps its key to itself and is the same after being opened again", async () => {
    assert.equal((await stat(join(dir, "ca", "ca.key"))).mode & 0o777, 0o600);
    assert.equal((await stat(join(dir, "ca"))).mode & 0o777, 0o700);
    assert.equal((await CertificateAuthority.open(join(dir, "ca"))).caPem, ca.caPem);
    assert.equal(new X509Certificate(ca.caPem).ca, true);
  });

  it("finishes what a crash between key and certificate left", async () => {
    const half = join(dir, "half");
    const first = await CertificateAuthority.open(half);
    await rm(join(half, "ca.crt"));
    const second = await CertificateAuthority.open(half);
    assert.equal(spkiFingerprint(second.caPem), spkiFingerprint(first.caPem));
  });

  it("refuses a certificate whose key is lost or another's", async () => {
    const broken = join(dir, "broken");
    await CertificateAuthority.open(broken);
    await writeFile(join(broken, "ca.key"), newKeyPair().keyPem);
    await assert.rejects(CertificateAuthority.open(broken), { code: "failed_precondition" });
    await rm(join(broken, "ca.key"));
    await assert.rejects(CertificateAuthority.open(broken), { code: "failed_precondition", message: /restore/ });
  });

  it("names a guest by its sandbox and a node by its id, valid an hour back", async () => {
    const key = newKeyPair();
    const guest = new X509Certificate(await ca.signGuest(makeCsr(key.keyPem, "whatever"), SANDBOX));
    assert.equal(guest.subjectAltName, `DNS:${SANDBOX}`);
    assert.deepEqual(guest.keyUsage, ["1.3.6.1.5.5.7.3.1"]);
    assert.ok(guest.checkIssued(new X509Certificate(ca.caPem)));
    assert.ok(guest.verify(new X509Certificate(ca.caPem).publicKey));
    const backMs = Date.now() - new Date(guest.validFrom).getTime();
    assert.ok(backMs > 3_590_000 && backMs < 3_700_000, `valid from ${guest.validFrom}`);
    const node = new X509Certificate(await ca.signNode(makeCsr(key.keyPem, ""), "node-1"));
    assert.equal(node.subject, "CN=node:node-1");
    assert.deepEqual(node.keyUsage, ["1.3.6.1.5.5.7.3.2"]);
    assert.equal(nodeIdOf("node:node-1"), "node-1");
    assert.equal(nodeIdOf("admin"), undefined);
    await assert.rejects(async () => ca.signNode(makeCsr(key.keyPem, ""), "a b,CN=x"), { code: "invalid_argument" });
  });

  it("never outlives itself", async () => {
    const late = new Date(Date.now() + 15 * 365 * 86_400_000);
    const old = await CertificateAuthority.open(join(dir, "ca"), { now: () => late });
    const leaf = new X509Certificate(await old.signGuest(makeCsr(newKeyPair().keyPem, ""), SANDBOX));
    assert.equal(leaf.validTo, new X509Certificate(ca.caPem).validTo);
    const after20Years = { now: () => new Date(Date.now() + 21 * 365 * 86_400_000) };
    await assert.rejects(CertificateAuthority.open(join(dir, "ca"), after20Years), { code: "failed_precondition" });
  });

  it("refuses a request that is cut, altered or of another kind of key", async () => {
    const csr = makeCsr(newKeyPair().keyPem, "abc");
    const der = Buffer.from(csr.replace(/-----[^-]+-----/g, ""), "base64");
    der.writeUInt8(der.readUInt8(der.indexOf("abc")) ^ 1, der.indexOf("abc"));
    const altered = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
    for (const bad of ["", "nonsense", csr.slice(0, 200), altered, ca.caPem]) {
      await assert.rejects(ca.signGuest(bad, SANDBOX), { code: "invalid_argument" });
    }
    const p384 = generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey.export({ type: "pkcs8", format: "pem" });
    await assert.rejects(ca.signGuest(makeCsr(String(p384), "x"), SANDBOX), { code: "invalid_argument" });
  });
});

describe("key fingerprint", () => {
  it("is one for key, request and certificate", async () => {
    const { keyPem, publicKeyPem } = newKeyPair();
    const all = [keyPem, publicKeyPem, makeCsr(keyPem, "x"), makeSelfSigned(keyPem, "x")].map(spkiFingerprint);
    assert.match(all[0] ?? "", /^[0-9a-f]{64}$/);
    assert.equal(new Set(all).size, 1);
    assert.notEqual(spkiFingerprint(newKeyPair().keyPem), all[0]);
  });
  it("says what it cannot read", () => {
    for (const bad of ["", "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----"]) {
      assert.throws(() => spkiFingerprint(bad), { code: "invalid_argument" });
    }
  });
});

describe("mutual TLS 1.3 with these certificates", () => {
  /** One handshake; what the server saw of the client, or the client's error. */
  async function handshake(
    server: { key: string; cert: string; ca: string },
    client: { key: string; cert: string; ca: string },
  ) {
    const listener = createServer({ ...server, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.3" });
    listener.on("secureConnection", (s: TLSSocket) => s.end(String(s.getPeerCertificate().subject.CN)));
    let refused: Error | undefined;
    listener.on("tlsClientError", (e) => {
      refused = e;
    });
    listener.listen(0, "127.0.0.1");
    await once(listener, "listening");
    const socket = connect({
      port: (listener.address() as AddressInfo).port,
      host: "127.0.0.1",
      servername: SANDBOX,
      ...client,
    });
    try {
      let text = "";
      for await (const part of socket.setEncoding("utf8")) text += part;
      if (refused !== undefined) throw refused;
      return text;
    } finally {
      socket.destroy();
      listener.close();
    }
  }

  it("connects node and guest, and nobody else", async () => {
    const dir = await mkdtemp(join(tmpdir(), "identity-"));
    try {
      const ca = await CertificateAuthority.open(join(dir, "a"));
      const other = await CertificateAuthority.open(join(dir, "b"));
      const nodeKey = newKeyPair().keyPem;
      const guestKey = newKeyPair().keyPem;
      const guest = { key: guestKey, cert: await ca.signGuest(makeCsr(guestKey, ""), SANDBOX), ca: ca.caPem };
      const node = { key: nodeKey, cert: await ca.signNode(makeCsr(nodeKey, ""), "n1"), ca: ca.caPem };
      assert.equal(await handshake(guest, node), "node:n1");

      const stranger = { ...node, cert: await other.signNode(makeCsr(nodeKey, ""), "n1") };
      await assert.rejects(handshake(guest, stranger));
      const otherPod = { ...guest, cert: await ca.signGuest(makeCsr(guestKey, ""), "another-sandbox") };
      await assert.rejects(handshake(otherPod, node), { code: "ERR_TLS_CERT_ALTNAME_INVALID" });
      await assert.rejects(handshake({ ...guest, cert: node.cert, key: nodeKey }, node), "a node is no server");
      await assert.rejects(handshake(guest, { ...node, cert: guest.cert, key: guestKey }), "a guest is no client");
      assert.ok((await readFile(join(dir, "a", "ca.key"), "utf8")).includes("PRIVATE KEY"));
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

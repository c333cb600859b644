import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { instanceName } from "../../src/adaptor/podvm/index.ts";
import { makeStockVmIdentity, newKeyPair, signStockClient } from "../../src/identity/index.ts";
import { toStockNetwork } from "../../src/podnetwork/index.ts";
import { renderApfJson, renderStockUserData } from "../../src/userdata/index.ts";
import { processUserData } from "./process-user-data.ts";
import { POD_NETNS } from "./world.ts";

const golden = (name: string): Promise<string> => readFile(new URL(`golden/${name}`, import.meta.url), "utf8");

/** Not real PEM, so that the files say nothing that changes. */
const pem = (label: string): string => `-----BEGIN ${label}-----\nAAAA\nBBBB==\n-----END ${label}-----\n`;
const podNetwork = toStockNetwork(POD_NETNS, {
  ...{ workerAddress: "192.0.2.10/24", port: 4789, vni: 555_000, index: 0 },
  ...{ dedicated: false, externalViaVm: false, podSubnets: [] },
});
const pod = { namespace: "default", name: "web" };
const tls = { certificatePem: pem("CERTIFICATE"), keyPem: pem("PRIVATE KEY"), clientCaPem: pem("CERTIFICATE") };

describe("golden files", () => {
  it("apf.json", async () => {
    assert.equal(`${renderApfJson({ podNetwork, pod, tls })}\n`, await golden("apf.golden"));
  });

  it("apf.json with the operator's certificates, a TLS profile, a tunnel of its own and subnets that stay on it", async () => {
    const dedicated = toStockNetwork(POD_NETNS, {
      ...{ workerAddress: "198.51.100.4/26", port: 8472, vni: 600_001, index: 1 },
      ...{ dedicated: true, externalViaVm: true, podSubnets: ["10.96.0.0/12"] },
    });
    const profile = { tlsMinVersion: "VersionTLS12", tlsCipherSuites: ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"] };
    assert.equal(`${renderApfJson({ podNetwork: dedicated, pod, ...profile })}\n`, await golden("apf-operator.golden"));
  });

  it("user-data, which the stock image's strict parser takes apart again", async () => {
    const authJson = '{"auths":{"registry.test":{"auth":"dTpw"}}}';
    const data = { podNetwork, pod, tls, authJson, initdata: "H4sIAAAA", scratchSpace: true };
    const document = Buffer.from(renderStockUserData(data, "aws")).toString("utf8");
    assert.equal(document, await golden("user-data.golden"));
    const plain = document.replace(/ {2}- path: \/run\/peerpod\/initdata\n.*\n.*\n/, "");
    const { files } = processUserData(plain);
    assert.deepEqual([...files.keys()].slice(0, 3), [
      "/run/peerpod/apf.json",
      "/run/peerpod/auth.json",
      "/run/peerpod/scratch-space.marker",
    ]);
    assert.equal(files.get("/run/peerpod/apf.json")?.trimEnd(), renderApfJson({ podNetwork, pod, tls }));
    assert.equal(files.get("/run/peerpod/auth.json")?.trimEnd(), authJson);
    assert.equal(files.get("/run/peerpod/scratch-space.marker"), "");
  });

  it("names", async () => {
    const cases = JSON.parse(await golden("names.json")) as { pod: string; sandbox: string; name: string }[];
    for (const { pod: podName, sandbox, name } of cases) {
      assert.equal(instanceName(podName, sandbox), name);
      assert.ok(name.length <= 63);
    }
  });

  it("fields of the certificates", async () => {
    const now = new Date("2026-11-24T09:00:00Z");
    const vm = makeStockVmIdentity("podvm-web-1-abcdef01", now);
    const node = newKeyPair();
    const client = signStockClient(vm, { publicKeyPem: node.publicKeyPem, commonName: "node:node-1" }, now);
    const shown = { ca: fields(vm.caPem), server: fields(vm.certificatePem), client: fields(client) };
    assert.deepEqual(shown, JSON.parse(await golden("certificates.json")));
    assert.match(vm.keyPem, /^-----BEGIN PRIVATE KEY-----\n/, "PKCS#8");
    const ca = new X509Certificate(vm.caPem);
    for (const text of [vm.certificatePem, client]) assert.ok(new X509Certificate(text).verify(ca.publicKey));
    assert.ok(new X509Certificate(vm.certificatePem).checkPrivateKey(createPrivateKey(vm.keyPem)));
    assert.notEqual(makeStockVmIdentity("x", now).caPem, makeStockVmIdentity("x", now).caPem, "one CA for each VM");
  });
});

function fields(certificatePem: string): object {
  const c = new X509Certificate(certificatePem);
  const anonymous = (name: string): string => name.replace(/CA [0-9a-f]{40}/, "CA <key id>");
  const { namedCurve } = c.publicKey.asymmetricKeyDetails ?? {};
  return {
    subject: anonymous(c.subject),
    issuer: anonymous(c.issuer),
    ca: c.ca,
    keyUsage: c.keyUsage ?? null,
    names: c.subjectAltName ?? null,
    signature: `${c.signatureAlgorithm}, ${namedCurve === "prime256v1" ? "P-256" : namedCurve}`,
    notBefore: c.validFrom,
    notAfter: c.validTo,
  };
}

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { opensslName, readStockTls } from "./stock-tls.ts";
import { readCreateVm } from "./vm-annotations.ts";

const POD = { "io.kubernetes.cri.sandbox-name": "web", "io.kubernetes.cri.sandbox-namespace": "default" };
const KEY = "io.katacontainers.config.hypervisor.";
const read = (annotations: Record<string, string>, id = "a1") =>
  readCreateVm({ id, annotations: { ...POD, ...annotations }, networkNamespacePath: "/n" });

describe("a CreateVM", () => {
  it("is read as Go's shim sends it", () => {
    const wish = read({ [`${KEY}default_vcpus`]: "2", [`${KEY}default_memory`]: "0", [`${KEY}machine_type`]: "" });
    assert.deepEqual(wish, {
      ...{ id: "a1", pod: { name: "web", namespace: "default" }, netnsPath: "/n", vcpus: 2, memoryMiB: 0, gpus: 0 },
    });
  });

  it("has a pod's name as CRI-O writes it too", () => {
    assert.equal(read({ "io.kubernetes.cri.sandbox-name": "k8s_nginx_default_uid_0" }).pod.name, "nginx");
    assert.equal(read({ "io.kubernetes.cri.sandbox-name": "k8s" }).pod.name, "k8s");
  });

  it("keeps initdata to the last byte", () => {
    assert.equal(read({ [`${KEY}cc_init_data`]: "a = 1\n" }).initdata, "a = 1\n");
    assert.equal(read({ [`${KEY}cc_init_data`]: "" }).initdata, undefined);
  });

  it("is refused by the name of what is wrong", () => {
    assert.throws(() => read({}, ""), /no sandbox id/);
    assert.throws(() => read({}, "../x"), /container id/);
    assert.throws(() => read({ "io.kubernetes.cri.sandbox-namespace": "" }), /sandbox-namespace/);
    for (const text of ["-1", "1e3", "0x10", "Infinity", "1.5.2"])
      assert.throws(() => read({ [`${KEY}default_memory`]: text }), /default_memory/, text);
  });
});

describe("cipher suites", () => {
  it("have OpenSSL's names", () => {
    for (const [iana, openssl] of [
      ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"],
      ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"],
      ["TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"],
      ["TLS_RSA_WITH_AES_256_GCM_SHA384", "AES256-GCM-SHA384"],
    ] as const)
      assert.equal(opensslName(iana), openssl);
    assert.throws(() => opensslName("ECDHE-RSA-AES128-GCM-SHA256"), /IANA/);
  });

  it("and files are checked together", async () => {
    await assert.rejects(
      readStockTls({ minVersion: "VersionTLS12", cipherSuites: [], caFile: "/x" }),
      /belong together/,
    );
    const missing = { caFile: "/no/ca", certificateFile: "/no/crt", keyFile: "/no/key" };
    await assert.rejects(
      readStockTls({ minVersion: "VersionTLS12", cipherSuites: [], ...missing }),
      /caFile: \/no\/ca/,
    );
  });
});

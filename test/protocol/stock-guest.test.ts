import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { connect } from "node:tls";
import { gzipSync } from "node:zlib";
import { Fault } from "../../src/base/fault.ts";
import { makeStockVmIdentity, newKeyPair, signStockClient } from "../../src/identity/index.ts";
import { StockForwarder } from "../fakes/stock-forwarder.ts";
import { createVm, HEALTH, newShimId, StockWorld, socketOf, startVm } from "./world.ts";

const INITDATA = "io.katacontainers.config.hypervisor.cc_init_data";
const TOML = 'algorithm = "sha384"\nversion = "0.1.0"\n\n[data]\n"aa.toml" = "x = 1"\n"policy.rego" = "package p"\n';

async function run(world: StockWorld, change: Readonly<Record<string, string>> = {}): Promise<string> {
  const id = newShimId();
  const path = socketOf(await world.goCall("CreateVM", createVm(id, change)));
  const started = await world.goCall("StartVM", startVm(id));
  assert.equal(started.code, 0, started.message);
  assert.equal((await (await world.dial(path)).call(HEALTH, "Check", new Uint8Array())).code, 0);
  return id;
}

describe("a VM with the stock image", () => {
  it("is told its pod, its network and a certificate with its own name", async () => {
    await using world = await StockWorld.open();
    const id = await run(world);
    const { apf } = world.provider.only.forwarder;
    assert.equal(apf["pod-network"]?.["vxlan-id"], 555_000);
    assert.equal(apf["pod-network"]?.["worker-node-ip"], "192.0.2.9/24");
    const name = `podvm-web-${id.slice(0, 8)}`;
    assert.equal(new X509Certificate(apf["tls-server-cert"] ?? "").subjectAltName, `DNS:${name}`);
    assert.equal(world.provider.specs[0]?.name, name, "the VM is called the same");
    assert.ok(world.network.calls.includes("attach /run/netns/".concat(id.slice(0, 8), " to 127.0.0.1")));
  });

  it("gets the pod's initdata, unchanged to the last byte", async () => {
    await using world = await StockWorld.open();
    await run(world, { [INITDATA]: TOML });
    const { forwarder } = world.provider.only;
    assert.equal(forwarder.initdataDigest, createHash("sha384").update(TOML).digest("hex"));
    assert.equal(forwarder.files.get("/run/peerpod/policy.rego"), "package p");
  });

  it("gets the node's initdata when the pod has none, and the pod's when both have", async () => {
    const node = TOML.replace("x = 1", "x = 2");
    await using world = await StockWorld.open({ initdata: gzipSync(node).toString("base64") });
    await run(world);
    assert.equal(world.provider.only.forwarder.files.get("/run/peerpod/aa.toml"), "x = 2");
    await world.provider.deleteInstance([...world.provider.machines.keys()][0] as never);
    await run(world, { [INITDATA]: TOML });
    assert.equal(world.provider.only.forwarder.files.get("/run/peerpod/aa.toml"), "x = 1");
  });

  it("has the image that its own pod names, and the next pod's is not changed by it", async () => {
    await using world = await StockWorld.open();
    await run(world, { "io.katacontainers.config.hypervisor.image": "img-1" });
    const [first] = world.provider.machines.keys();
    await world.provider.deleteInstance(first as never);
    await run(world);
    assert.deepEqual(
      world.provider.specs.map((spec) => spec.image),
      ["img-1", undefined],
    );
  });

  it("without a second interface is not promised an external network", async () => {
    await using world = await StockWorld.open({ externalNetworkViaVm: true });
    const refused = await world.goCall("CreateVM", createVm(newShimId()));
    assert.equal(refused.code, 9);
    assert.match(refused.message, /second interface of their VM, and provider zero gives it none/);
    assert.equal(world.provider.created, 0);
    world.provider.secondInterface = true;
    await run(world);
    assert.equal(world.provider.only.forwarder.apf["pod-network"]?.["external-net-via-pod-vm"], true);
  });

  it("is not even reserved for an initdata with which it would hang", async () => {
    await using world = await StockWorld.open();
    const without = TOML.replace(/"aa.toml".*\n/, "");
    const reply = await world.goCall("CreateVM", createVm(newShimId(), { [INITDATA]: without }));
    assert.equal(reply.code, 3);
    assert.match(reply.message, /\[data\] has no "aa\.toml"/);
    assert.equal(world.provider.created, 0);
    await world.until("nothing is left", () => world.network.taken.size === 0);
  });

  it("is not promised by a node whose own initdata would let it hang", async () => {
    const initdata = gzipSync(TOML.replace(/"aa.toml".*\n/, "")).toString("base64");
    await assert.rejects(StockWorld.open({ initdata }), /\[data\] has no "aa\.toml"/);
    await assert.rejects(StockWorld.open({ initdata: TOML }), /not base64 of gzip/);
  });

  it("has the scratch marker when the node's configuration says so, and only then", async () => {
    for (const scratchSpace of [false, true]) {
      await using world = await StockWorld.open({ scratchSpace });
      await run(world);
      assert.equal(world.provider.only.forwarder.files.has("/run/peerpod/scratch-space.marker"), scratchSpace);
    }
  });

  it("has the same user-data when its create call goes out twice", async () => {
    await using world = await StockWorld.open();
    world.provider.knobs.lostAnswers.push(new Fault("unavailable", "connection reset"));
    await run(world);
    const [first, second] = world.provider.specs;
    assert.ok(second !== undefined && Buffer.from(first?.userData ?? []).equals(second.userData));
    assert.equal(world.provider.created, 1);
  });

  it("leaves no key readable: not in the adaptor's store, not over REST, not in the node's state", async () => {
    await using world = await StockWorld.open();
    const id = await run(world);
    const key = (world.provider.only.forwarder.apf["tls-server-key"] ?? "").split("\n")[1] ?? "";
    assert.ok(key.length > 40);
    const rest = await (await fetch(`${world.rest}/v1/sandboxes`)).text();
    assert.ok(rest.includes(`podvm-web-${id.slice(0, 8)}`) && !rest.includes(key) && !rest.includes("PRIVATE KEY"));
    await world.stopAdaptor();
    for (const name of ["adaptor.sqlite", "store.sqlite"]) {
      const bytes = await readFile(join(world.dir, name)).catch(() => Buffer.alloc(0));
      assert.ok(!bytes.includes(key) && !bytes.includes("PRIVATE KEY"), name);
    }
    const state = await readFile(join(world.dir, "run", "stock", `${id}.json`), "utf8");
    assert.ok(!state.includes("KEY"));
  });

  it("lets only its own node in: no certificate, and one for another VM, are refused", async () => {
    await using world = await StockWorld.open();
    await run(world);
    const { forwarder } = world.provider.only;
    const other = makeStockVmIdentity("podvm-other", new Date());
    const node = newKeyPair();
    const cert = signStockClient(other, { publicKeyPem: node.publicKeyPem, commonName: "node:node-1" }, new Date());
    const before = forwarder.connections;
    for (const identity of [{}, { cert, key: node.keyPem }]) {
      const socket = connect({ port: forwarder.port, rejectUnauthorized: false, ...identity });
      socket.on("error", () => undefined); // that is what is expected
      await new Promise((resolve) => socket.once("close", resolve));
    }
    assert.equal(forwarder.connections, before);
  });

  it("is not taken for another machine at its address", async () => {
    await using world = await StockWorld.open({ connectTimeoutMs: 2000 });
    const id = newShimId();
    await world.goCall("CreateVM", createVm(id));
    const impostor = makeStockVmIdentity(`podvm-web-${id.slice(0, 8)}`, new Date());
    const create = world.provider.createInstance.bind(world.provider);
    world.provider.createInstance = async (spec, call) => {
      const text = Buffer.from(spec.userData).toString();
      const lines = text.replace(/"tls-server-(key|cert)": ".*"/g, (_, part: string) => {
        const pem = part === "key" ? impostor.keyPem : impostor.certificatePem;
        return `"tls-server-${part}": ${JSON.stringify(pem)}`;
      });
      return create({ ...spec, userData: Buffer.from(lines) }, call);
    };
    const reply = await world.goCall("StartVM", startVm(id));
    assert.notEqual(reply.code, 0);
    assert.match(reply.message, /another key than the one that was made for this pod VM/);
  });
});

describe("a VM whose image has the operator's certificates", () => {
  it("gets no key in user-data, and is known by the operator's CA and name", async () => {
    const operator = makeStockVmIdentity("podvm-server", new Date());
    const node = newKeyPair();
    const client = signStockClient(operator, { publicKeyPem: node.publicKeyPem, commonName: "worker" }, new Date());
    const dir = await mkdtemp(join(tmpdir(), "tls-"));
    const file = async (name: string, text: string): Promise<string> => {
      await writeFile(join(dir, name), text, { mode: 0o600 });
      return join(dir, name);
    };
    const tls = {
      caFile: await file("ca.pem", operator.caPem),
      certificateFile: await file("tls.crt", client),
      keyFile: await file("tls.key", node.keyPem),
    };
    await using manual = await StockWorld.open({ tls });
    manual.provider.image = { image: operator };
    await run(manual);
    const { apf } = manual.provider.only.forwarder;
    assert.equal(apf["tls-server-key"], undefined);
    assert.equal(apf["tls-client-ca"], undefined);
    await rm(dir, { recursive: true });
  });
});

describe("the TLS profile", () => {
  it("is told to the forwarder and kept by the node", async () => {
    await using world = await StockWorld.open({ tls: { minVersion: "VersionTLS13" } });
    await run(world);
    const { forwarder } = world.provider.only;
    assert.equal(forwarder.apf["tls-min-version"], "VersionTLS13");
    assert.match(forwarder.sessions[0] ?? "", /^TLSv1\.3 /);
  });

  it("is asked of a VM whatever that was told: one that speaks less is not spoken to", async () => {
    await using world = await StockWorld.open({ tls: { minVersion: "VersionTLS13" }, connectTimeoutMs: 3000 });
    const create = world.provider.createInstance.bind(world.provider);
    world.provider.createInstance = (spec, call) => {
      const document = Buffer.from(spec.userData).toString().replace('"tls-min-version"', '"other"');
      return create({ ...spec, userData: Buffer.from(document) }, call);
    };
    world.provider.image = { maxVersion: "TLSv1.2" };
    const id = newShimId();
    await world.goCall("CreateVM", createVm(id));
    const refused = await world.goCall("StartVM", startVm(id));
    assert.notEqual(refused.code, 0);
    assert.match(refused.message, /cannot reach the agent/);
  });

  it("with cipher suites goes for TLS 1.2, by their IANA names", async () => {
    const suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    await using world = await StockWorld.open({ tls: { cipherSuites: [suite] } });
    world.provider.image = { maxVersion: "TLSv1.2" };
    await run(world);
    const { forwarder } = world.provider.only;
    assert.deepEqual(forwarder.apf["tls-cipher-suites"], [suite]);
    assert.equal(forwarder.sessions[0], `TLSv1.2 ${suite}`);
    await assert.rejects(StockWorld.open({ tls: { cipherSuites: ["TLS_MADE_UP"] } }), /TLS_MADE_UP/);
    await assert.rejects(StockWorld.open({ tls: { minVersion: "VersionTLS13", cipherSuites: [suite] } }), /TLS 1\.3/);
  });
});

describe("the strict parser of the stock image", () => {
  const boot = (text: string): Promise<StockForwarder> => StockForwarder.boot(Buffer.from(text));
  for (const [what, text, problem] of [
    ["another top-level key", "#cloud-config\nwrite_files: []\nruncmd: []\n", /runcmd/],
    [
      "permissions",
      '#cloud-config\nwrite_files:\n  - path: /run/peerpod/apf.json\n    permissions: "0644"\n',
      /permissions/,
    ],
    ["a key twice", "#cloud-config\nwrite_files: []\nwrite_files: []\n", /unique/],
    [
      "no pod-network",
      "#cloud-config\nwrite_files:\n  - path: /run/peerpod/apf.json\n    content: |\n      {}\n",
      /crashes/,
    ],
  ] as const) {
    it(`refuses ${what}: what we send has none of it`, async () => {
      await assert.rejects(boot(text), problem);
    });
  }
});

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { TLSSocket } from "node:tls";
import { StockWorker, stockPodNetwork } from "../../../test/support/stock-worker.ts";
import { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import { HealthDefinition } from "../../gen/agent/health.ts";
import { GuestDefinition } from "../../gen/kataremote/guest/v1/guest.ts";
import { Code, createClient, TtrpcClient } from "../../ttrpc/index.ts";
import { stockGuest } from "./stock-guest.ts";
import { isStockSeed } from "./stock-mark.ts";

const home = mkdtempSync(join(tmpdir(), "stock-guest-"));
after(() => rmSync(home, { recursive: true }));
let worker: StockWorker;
before(async () => {
  worker = await StockWorker.make();
});

let guests = 0;

/** Our guest as it boots from a document of the stock worker, with an agent that notes what it is told. */
async function boot(userData: string, certificates = join(home, "none")) {
  guests += 1;
  const directory = join(home, `peerpod-${guests}`);
  const plans: unknown[] = [];
  const started: string[] = [];
  const forwarder = await stockGuest({
    userData,
    directory,
    certificates,
    agent: {
      startContainer: async ({ containerId }) => {
        started.push(containerId);
        return {};
      },
    },
    setPodNetwork: async (json) => {
      plans.push(JSON.parse(json));
    },
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  });
  const port = await forwarder.listen(0, "127.0.0.1");
  return { directory, plans, started, port, [Symbol.asyncDispose]: () => forwarder[Symbol.asyncDispose]() };
}

function clients(socket: TLSSocket) {
  const connection = new TtrpcClient(socket);
  return {
    health: createClient(HealthDefinition, connection),
    agent: createClient(AgentServiceDefinition, connection),
    guest: createClient(GuestDefinition, connection),
  };
}

/** Resolves when the guest has refused the connection; in TLS 1.3 the client learns it after its own handshake. */
async function refused(dialling: Promise<TLSSocket>): Promise<void> {
  const socket = await dialling.catch(() => undefined);
  if (socket === undefined) return;
  await new Promise<void>((resolve) => {
    socket.on("error", () => undefined);
    socket.once("close", () => resolve());
    socket.resume();
  });
}

describe("our guest under the stock adaptor", () => {
  it("knows the document from its own", () => {
    assert.equal(isStockSeed(worker.userData()), true);
    assert.equal(isStockSeed("#cloud-config\nwrite_files:\n  - path: /run/kata-remote/ca.pem\n"), false);
  });

  it("serves health and agent on every connection of the worker, and nothing else", async () => {
    await using guest = await boot(worker.userData());
    const first = clients(await worker.dial(guest.port));
    const second = clients(await worker.dial(guest.port, worker.client, { maxVersion: "TLSv1.2" }));
    assert.equal((await first.health.check({ service: "" })).status, 1);
    assert.match((await second.health.version({ service: "" })).agentVersion, /^\d/);
    await first.agent.startContainer({ containerId: "c1" });
    await second.agent.startContainer({ containerId: "c2" });
    assert.deepEqual(guest.started, ["c1", "c2"]);
    await assert.rejects(first.agent.pauseContainer({ containerId: "c1" }), { code: Code.unimplemented });
    await assert.rejects(first.guest.enroll({}), { code: Code.unimplemented });
  });

  it("answers the bytes that the worker's proxy sends", async () => {
    await using guest = await boot(worker.userData());
    const socket = await worker.dial(guest.port);
    // grpc.Health Check, 30 s: header (length 33, stream 1, request, no flags), service, method, timeout_nano.
    const body = Buffer.concat([
      Buffer.from([0x0a, 11]),
      Buffer.from("grpc.Health"),
      Buffer.from([0x12, 5]),
      Buffer.from("Check"),
      Buffer.from([0x20, 0x80, 0xd8, 0x8e, 0xe1, 0x6f]),
    ]);
    const header = Buffer.from([0, 0, 0, body.length, 0, 0, 0, 1, 1, 0]);
    const answer = new Promise<Buffer>((resolve) => socket.once("data", resolve));
    socket.write(Buffer.concat([header, body]));
    // Response: no status, payload {status: SERVING}.
    assert.deepEqual(await answer, Buffer.from([0, 0, 0, 4, 0, 0, 0, 1, 2, 0, 0x12, 2, 0x08, 1]));
    socket.destroy();
  });

  it("has the pod's network before it listens", async () => {
    await using guest = await boot(worker.userData());
    assert.deepEqual(guest.plans, [
      {
        version: 1,
        tunnel: { kind: "vxlan", port: 4789, workerAddress: "192.0.2.10", vnis: [555000] },
        interfaces: [
          {
            name: "eth0",
            mac: "02:00:00:00:00:07",
            mtu: 1450,
            addresses: [{ address: "10.9.0.7", prefixLength: 24 }],
          },
        ],
        routes: [
          { destination: "0.0.0.0/0", device: "eth0", gateway: "10.9.0.1", protocol: 3 },
          { destination: "10.9.0.0/24", device: "eth0", protocol: 2, scope: 253 },
        ],
        neighbours: [{ address: "10.9.0.1", mac: "02:00:00:00:00:01", device: "eth0" }],
      },
    ]);
  });

  it("lets in nobody but the holder of the client certificate", async () => {
    await using guest = await boot(worker.userData());
    const stranger = await StockWorker.make();
    await refused(worker.dial(guest.port, {}));
    await refused(worker.dial(guest.port, stranger.client));
    await refused(worker.dial(guest.port, worker.server));
    assert.equal((await clients(await worker.dial(guest.port)).health.check({ service: "" })).status, 1);
  });

  it("keeps to the TLS profile of the document", async () => {
    await using modern = await boot(worker.userData(worker.apf({ "tls-min-version": "VersionTLS13" })));
    await refused(worker.dial(modern.port, worker.client, { maxVersion: "TLSv1.2" }));
    (await worker.dial(modern.port)).destroy();
    const suites = ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"];
    await using narrow = await boot(worker.userData(worker.apf({ "tls-cipher-suites": suites })));
    const old = await worker.dial(narrow.port, worker.client, { maxVersion: "TLSv1.2" });
    assert.equal(old.getCipher().standardName, suites[0]);
    old.destroy();
    const socket = await worker.dial(narrow.port);
    assert.equal(socket.getProtocol(), "TLSv1.3");
    socket.destroy();
  });

  it("takes the image's certificates when the document has none (manual mode)", async () => {
    const certificates = join(home, "certificates");
    mkdirSync(certificates);
    writeFileSync(join(certificates, "tls.key"), worker.server.keyPem);
    writeFileSync(join(certificates, "tls.crt"), worker.server.certPem);
    writeFileSync(join(certificates, "ca.crt"), worker.client.certPem);
    const { "pod-network": network } = worker.apf();
    await using guest = await boot(worker.userData({ "pod-network": network }), certificates);
    assert.equal((await clients(await worker.dial(guest.port)).health.check({ service: "" })).status, 1);
  });

  it("keeps the document's other files from everybody else", async () => {
    const auth = '{"auths":{}}\n';
    await using guest = await boot(worker.userData(worker.apf(), { "/run/peerpod/auth.json": auth, "/etc/x": "y" }));
    const path = join(guest.directory, "auth.json");
    assert.equal(readFileSync(path, "utf8"), auth);
    assert.equal(statSync(path).mode & 0o777, 0o600);
  });

  describe("says what it cannot use, by name", () => {
    const broken: readonly [string, (w: StockWorker) => string, RegExp][] = [
      ["no client CA", (w) => w.userData(w.apf({ "tls-client-ca": "" })), /tls-client-ca .* is empty/],
      ["a broken certificate", (w) => w.userData(w.apf({ "tls-server-cert": "x" })), /tls-server-cert .* not a PEM/],
      ["a key of another", (w) => w.userData(w.apf({ "tls-server-key": w.client.keyPem })), /not the key of/],
      ["TLS of the past", (w) => w.userData(w.apf({ "tls-min-version": "VersionTLS11" })), /VersionTLS11/],
      ["a suite", (w) => w.userData(w.apf({ "tls-cipher-suites": ["TLS_X"] })), /"TLS_X" is not known/],
      ["no network", (w) => w.userData(w.apf({ "pod-network": undefined })), /pod-network/],
      ["scratch space", (w) => w.userData(w.apf(), { "/run/peerpod/scratch-space.marker": "" }), /scratch-space/],
      ["initdata", (w) => w.userData(w.apf(), { "/run/peerpod/initdata": "H4sI" }), /initdata/],
      ["no JSON", () => "#cloud-config\nwrite_files:\n  - path: /run/peerpod/apf.json\n    content: x\n", /not JSON/],
      ["no YAML", () => "/run/peerpod/apf.json: [", /not valid YAML/],
    ];
    for (const [name, document, message] of broken) {
      it(name, () => assert.rejects(boot(document(worker)), { message }));
    }

    const networks: readonly [string, Record<string, unknown>, RegExp][] = [
      ["tunnel-type", { "tunnel-type": "mock" }, /tunnel-type "mock"/],
      ["dedicated", { dedicated: true }, /dedicated needs/],
      ["an external network", { "external-net-via-pod-vm": true }, /external-net-via-pod-vm needs/],
      ["protocol", { routes: [{ dst: "0.0.0.0/0", gw: "10.9.0.1", protocol: "bgp" }] }, /protocol .* "bgp"/],
      ["scope", { routes: [{ dst: "0.0.0.0/0", gw: "10.9.0.1", scope: "x" }] }, /scope .* "x"/],
      ["state", { neighbors: [{ ip: "10.9.0.1", "hw-addr": "02:00:00:00:00:01", state: "stale" }] }, /stale/],
      ["podip", { podip: "10.9.0.7" }, /prefixLength/],
      ["vxlan-id", { "vxlan-id": undefined }, /vnis/],
      ["a name that is a command", { interface: "eth0\nlink delete lo" }, /name/],
    ];
    for (const [name, over, message] of networks) {
      it(name, () =>
        assert.rejects(boot(worker.userData(worker.apf({ "pod-network": stockPodNetwork(over) }))), { message }),
      );
    }
  });
});

import assert from "node:assert/strict";
import { createPublicKey } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { connect, type TLSSocket } from "node:tls";
import { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import { HealthDefinition } from "../../gen/agent/health.ts";
import { GuestDefinition } from "../../gen/kataremote/guest/v1/guest.ts";
import { REQUEST_KEY, TREE_ALPN } from "../../guestwire/index.ts";
import { CertificateAuthority, makeCsr, newKeyPair } from "../../identity/index.ts";
import { Code, createClient, TtrpcClient } from "../../ttrpc/index.ts";
import { Children } from "../system/children.ts";
import { Forwarder } from "./forwarder.ts";
import { GuestIdentity } from "./identity.ts";
import { TreeStore } from "./tree-store.ts";

const home = mkdtempSync(join(tmpdir(), "forwarder-"));
after(() => rmSync(home, { recursive: true }));
const SANDBOX = "11111111-2222-3333-4444-555555555555";

interface Node {
  readonly key: string;
  readonly cert: string;
}

async function newNode(ca: CertificateAuthority, id: string): Promise<Node> {
  const { keyPem } = newKeyPair();
  return { key: keyPem, cert: await ca.signNode(makeCsr(keyPem, id), id) };
}

let fixtures = 0;

/** A guest's forwarder in this process, with an agent that counts. */
async function guest() {
  fixtures += 1;
  const dir = join(home, String(fixtures));
  const trees = join(dir, "trees");
  mkdirSync(trees, { recursive: true });
  const ca = await CertificateAuthority.open(join(dir, "ca"));
  const identity = new GuestIdentity(ca.caPem);
  const clock: bigint[] = [];
  const started: string[] = [];
  const treeDirectory = (id: string): string => join(trees, id);
  const forwarder = new Forwarder({
    identity,
    agent: {
      startContainer: async ({ containerId }) => {
        started.push(containerId);
        return {};
      },
    },
    trees: new TreeStore({ children: new Children(), directory: treeDirectory, diskText: () => "0 MiB free of 1 MiB" }),
    treeDirectory,
    machine: {
      setClock: (t) => clock.push(t),
      setHostname: () => undefined,
      setPodNetwork: async () => "",
      listeningMs: () => 42,
    },
    diskPath: dir,
    images: () => Promise.reject(new Error("no image is pulled here")),
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  });
  const port = await forwarder.listen(0, "127.0.0.1");
  const node = await newNode(ca, "node-1");
  const dial = (as: Partial<Node> = node, alpn?: string): Promise<TLSSocket> =>
    new Promise((resolve, reject) => {
      const options = alpn === undefined ? {} : { ALPNProtocols: [alpn] };
      const socket = connect({ port, host: "127.0.0.1", ca: ca.caPem, ...as, rejectUnauthorized: false, ...options });
      socket.once("secureConnect", () => resolve(socket));
      socket.once("error", reject);
    });
  const client = async (as: Node = node) => {
    const connection = new TtrpcClient(await dial(as));
    return {
      connection,
      guest: createClient(GuestDefinition, connection),
      health: createClient(HealthDefinition, connection),
      agent: createClient(AgentServiceDefinition, connection),
    };
  };
  const configure = async (c: Awaited<ReturnType<typeof client>>, over: { nowUnixNano?: bigint } = {}) => {
    const { csrPem } = await c.guest.enroll({});
    const certificatePem = await ca.signGuest(csrPem, SANDBOX);
    const request = {
      sandboxId: SANDBOX,
      certificatePem,
      nowUnixNano: BigInt(Date.now()) * 1_000_000n,
      hostname: "",
      podNetworkJson: "",
    };
    await c.guest.configure({ ...request, ...over });
  };
  return {
    ca,
    identity,
    forwarder,
    dial,
    client,
    configure,
    clock,
    started,
    trees,
    [Symbol.asyncDispose]: () => forwarder[Symbol.asyncDispose](),
  };
}

/** Resolves when the guest has hung up. */
function hungUp(socket: TLSSocket): Promise<void> {
  return new Promise((resolve) => {
    socket.on("error", () => undefined);
    socket.once("close", () => resolve());
    socket.resume();
  });
}

describe("a guest before Configure", () => {
  it("lets nobody in without a certificate of its CA that names a node", async () => {
    await using g = await guest();
    const stranger = await CertificateAuthority.open(join(home, "stranger"));
    const guestKey = newKeyPair().keyPem;
    const peers: Partial<Node>[] = [
      {},
      await newNode(stranger, "node-1"),
      { key: guestKey, cert: await g.ca.signGuest(makeCsr(guestKey, "x"), SANDBOX) },
    ];
    for (const peer of peers) {
      const socket = await g.dial(peer).catch(() => undefined);
      if (socket !== undefined) await hungUp(socket);
    }
    await (await g.client()).guest.enroll({});
  });

  it("answers nothing for the agent", async () => {
    await using g = await guest();
    const c = await g.client();
    await assert.rejects(c.health.check({ service: "" }), { code: Code.failedPrecondition });
    await assert.rejects(c.agent.startContainer({ containerId: "c" }), { code: Code.failedPrecondition });
    const socket = await g.dial(undefined, TREE_ALPN);
    assert.equal((await sendTree(socket, "t", Buffer.alloc(0))).code, "failed_precondition");
  });

  it("takes no certificate but one for its own key from its own CA", async () => {
    await using g = await guest();
    const c = await g.client();
    const stranger = await CertificateAuthority.open(join(home, "stranger"));
    const { csrPem } = await c.guest.enroll({});
    const foreign = [
      await stranger.signGuest(csrPem, SANDBOX),
      await g.ca.signGuest(makeCsr(newKeyPair().keyPem, "x"), SANDBOX),
      "hello",
    ];
    for (const certificatePem of foreign) {
      const request = { sandboxId: SANDBOX, certificatePem, nowUnixNano: 0n, hostname: "", podNetworkJson: "" };
      await assert.rejects(c.guest.configure(request), { code: Code.invalidArgument });
    }
    await g.configure(c);
  });
});

describe("a guest after Configure", () => {
  it("shows its signed certificate and serves the agent", async () => {
    await using g = await guest();
    const c = await g.client();
    await g.configure(c);
    assert.equal((await c.health.check({ service: "" })).status, 1);
    await c.agent.startContainer({ containerId: "c" });
    const shown = (await g.dial()).getPeerX509Certificate();
    assert.ok(shown?.verify(createPublicKey(g.ca.caPem)));
    assert.equal(shown?.subjectAltName, `DNS:${SANDBOX}`);
  });

  it("belongs to one sandbox and one node", async () => {
    await using g = await guest();
    const other = await newNode(g.ca, "node-2");
    const early = await g.dial(other);
    const c = await g.client();
    await g.configure(c);
    await hungUp(early);
    await hungUp(await g.dial(other));
    const again = { sandboxId: SANDBOX, certificatePem: "", nowUnixNano: 0n, hostname: "", podNetworkJson: "" };
    await c.guest.configure(again);
    await assert.rejects(c.guest.configure({ ...again, sandboxId: "other" }), { code: Code.failedPrecondition });
    await assert.rejects(c.guest.enroll({}), { code: Code.failedPrecondition });
  });

  it("sets its clock when it is off by more than a second", async () => {
    await using g = await guest();
    await g.configure(await g.client());
    assert.deepEqual(g.clock, []);
    await using late = await guest();
    const now = BigInt(Date.now() + 300_000) * 1_000_000n;
    await late.configure(await late.client(), { nowUnixNano: now });
    assert.deepEqual(late.clock, [now]);
  });

  it("does a call once that is repeated on another connection", async () => {
    await using g = await guest();
    const first = await g.client();
    await g.configure(first);
    const options = { metadata: [[REQUEST_KEY, "k"]] as const };
    await first.agent.startContainer({ containerId: "c" }, options);
    first.connection.close();
    await (await g.client()).agent.startContainer({ containerId: "c" }, options);
    assert.deepEqual(g.started, ["c"]);
  });

  it("closes one connection that sends nonsense, and no other", async () => {
    await using g = await guest();
    const c = await g.client();
    await g.configure(c);
    const socket = await g.dial();
    socket.write(Buffer.alloc(64, 0xff));
    await hungUp(socket);
    assert.equal((await c.health.check({ service: "" })).status, 1);
  });
});

function u32(n: number): Buffer {
  const b = Buffer.alloc(4);
  b.writeUInt32BE(n);
  return b;
}

/** Sends a tree in frames of odd sizes; gives the guest's answer. */
async function sendTree(
  socket: TLSSocket,
  treeId: string,
  tar: Buffer,
  sha256?: Buffer,
): Promise<Record<string, unknown>> {
  const { createHash } = await import("node:crypto");
  const header = Buffer.from(JSON.stringify({ treeId }));
  socket.write(Buffer.concat([u32(header.length), header]));
  for (let at = 0; at < tar.length; at += 7001) {
    const frame = tar.subarray(at, at + 7001);
    socket.write(Buffer.concat([u32(frame.length), frame]));
  }
  socket.write(Buffer.concat([u32(0), sha256 ?? createHash("sha256").update(tar).digest()]));
  let answer = Buffer.alloc(0);
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    answer = Buffer.concat([answer, chunk]);
    if (answer.length > 4 && answer.length >= 4 + answer.readUInt32BE(0)) break;
  }
  return JSON.parse(answer.subarray(4).toString()) as Record<string, unknown>;
}

describe("a tree", () => {
  async function tarOf(files: Record<string, string>): Promise<Buffer> {
    const { execFileSync } = await import("node:child_process");
    const source = mkdtempSync(join(home, "source-"));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(source, name), text);
    return execFileSync("tar", ["-c", "-C", source, "."]);
  }

  it("arrives whole, once", async () => {
    await using g = await guest();
    const c = await g.client();
    await g.configure(c);
    const tar = await tarOf({ a: "1".repeat(100_000), b: "2" });
    assert.deepEqual((await c.guest.statTree({ treeId: "t" })).present, false);
    const first = await sendTree(await g.dial(undefined, TREE_ALPN), "t", tar);
    assert.deepEqual([first.ok, first.bytes], [true, tar.length]);
    assert.deepEqual((await c.guest.statTree({ treeId: "t" })).present, true);
    assert.deepEqual(await sendTree(await g.dial(undefined, TREE_ALPN), "t", tar), { ok: true, skipped: true });
  });

  it("leaves nothing behind when it is damaged, cut off or no tar stream", async () => {
    await using g = await guest();
    await g.configure(await g.client());
    const tar = await tarOf({ a: "hello" });
    const damaged = await sendTree(await g.dial(undefined, TREE_ALPN), "t", tar, Buffer.alloc(32));
    assert.equal(damaged.code, "aborted");
    const garbage = await sendTree(await g.dial(undefined, TREE_ALPN), "t", Buffer.alloc(70_000, 65));
    assert.equal(garbage.code, "internal");
    assert.match(String(garbage.message), /does not look like a tar archive/);
    const cut = await g.dial(undefined, TREE_ALPN);
    cut.end(Buffer.concat([u32(14), Buffer.from('{"treeId":"t"}'), u32(1000), Buffer.alloc(10)]));
    await hungUp(cut);
    assert.ok(!existsSync(join(g.trees, "t")));
    assert.equal((await sendTree(await g.dial(undefined, TREE_ALPN), "t", tar)).ok, true);
  });
});

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, link, mkdir, open, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { background, withDeadline } from "../../src/base/call.ts";
import { deferred } from "../../src/base/deferred.ts";
import { AgentServiceDefinition } from "../../src/gen/agent/agent.ts";
import { Forwarder, GuestIdentity, TreeStore } from "../../src/guest/forwarder/index.ts";
import { Children } from "../../src/guest/system/children.ts";
import type { GuestSpec } from "../../src/relay/index.ts";
import { createClient, type ServiceImplementation } from "../../src/ttrpc/index.ts";
import { RelayFixture } from "../support/relay-fixture.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const run = promisify(execFile);
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** Our relay and the guest's own forwarder, on two ends of a path that can be cut. */
async function world(agent: ServiceImplementation<typeof AgentServiceDefinition> = {}) {
  const fixture = await RelayFixture.create();
  const identity = new GuestIdentity(fixture.ca.caPem);
  const treeDirectory = (treeId: string): string => join(fixture.dir, "trees", treeId);
  const hostnames: string[] = [];
  const forwarder = new Forwarder({
    ...{ identity, agent, treeDirectory, diskPath: fixture.dir, log: quiet },
    trees: new TreeStore({ children: new Children(), directory: treeDirectory, diskText: () => "" }),
    images: () => Promise.reject(new Error("no image is pulled here")),
    machine: {
      setClock: () => undefined,
      setHostname: (name) => hostnames.push(name),
      listeningMs: () => 3700,
      setPodNetwork: async () => "",
    },
  });
  const port = await forwarder.listen(0, "127.0.0.1");
  const proxy = await TcpProxy.open(() => port);
  const connect = (change: Partial<GuestSpec> = {}) =>
    fixture.relay.connectGuest(fixture.spec(proxy.port, change), withDeadline(10_000));
  return {
    ...{ fixture, relay: fixture.relay, proxy, identity, hostnames, treeDirectory, connect },
    [Symbol.asyncDispose]: async () => {
      await fixture[Symbol.asyncDispose]();
      await proxy.close();
      await forwarder[Symbol.asyncDispose]();
    },
  };
}

describe("relay and forwarder", () => {
  it("enrol, configure and go on over broken connections; a call is carried out once", async () => {
    let starts = 0;
    const exit = deferred<{ status: number }>();
    await using w = await world({
      startContainer: async () => {
        starts += 1;
        return {};
      },
      waitProcess: () => exit.promise,
    });
    const facts = await w.connect();
    assert.equal(facts.listeningMs, 3700);
    assert.deepEqual(w.hostnames, ["pod"]);
    const agent = createClient(AgentServiceDefinition, w.relay.guest(w.fixture.sandboxId));
    const waiting = agent.waitProcess({ containerId: "c", execId: "c" });
    for (let n = 1; n <= 4; n++) {
      await agent.startContainer({ containerId: "c" });
      assert.equal(starts, n);
      w.proxy.cut();
    }
    exit.resolve({ status: 37 });
    assert.equal((await waiting).status, 37);
  });

  it("let no second node in, nor one of another CA", async () => {
    await using w = await world();
    await w.connect();
    await using other = await RelayFixture.create();
    const spec = { ...w.fixture.spec(w.proxy.port), sandboxId: other.sandboxId };
    await assert.rejects(other.relay.connectGuest({ ...spec, identity: other.identity }, withDeadline(10_000)), {
      code: "permission_denied",
    });
  });

  it("carry a root filesystem: modes, owners, links, devices and holes", async () => {
    await using w = await world();
    await w.connect();
    const root = join(w.fixture.dir, "root");
    await mkdir(join(root, "sub"), { recursive: true });
    await writeFile(join(root, "sub", "tool"), "#!/bin/sh\n");
    await chmod(join(root, "sub", "tool"), 0o4755);
    await link(join(root, "sub", "tool"), join(root, "sub", "same"));
    await symlink("../sub/tool", join(root, "sub", "link"));
    await run("mknod", [join(root, "null"), "c", "1", "3"]);
    await run("chown", ["-h", "1234:5678", join(root, "sub", "link")]);
    const sparse = await open(join(root, "sparse"), "w");
    await sparse.write("end", 1 << 30);
    await sparse.close();
    const started = performance.now();
    const tree = { treeId: "tree-1", path: root };
    const receipt = await w.relay.sendTree(w.fixture.sandboxId, tree, background());
    assert.ok(receipt.bytes < 1 << 20, `${receipt.bytes} bytes for a hole`);
    assert.ok(performance.now() - started < 10_000);
    const there = w.treeDirectory("tree-1");
    const list = async (dir: string): Promise<string> =>
      (
        await run("find", [dir, "-printf", "%P %y %m %U:%G %s %n %l\n"], { env: { ...process.env, LC_ALL: "C" } })
      ).stdout
        .split("\n")
        .sort()
        .join("\n");
    const sizes = (text: string): string => text.replaceAll(/ d (\S+ \S+) \d+ /g, " d $1 - ");
    assert.equal(sizes(await list(there)), sizes(await list(root)));
    assert.ok((await stat(join(there, "sparse"))).blocks < 100);
    assert.deepEqual(await w.relay.sendTree(w.fixture.sandboxId, tree, background()), {
      bytes: 0,
      sha256: "",
      skipped: true,
    });
  });
});

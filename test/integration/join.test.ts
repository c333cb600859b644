import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { withDeadline } from "../../src/base/call.ts";
import { silentLogger } from "../../src/base/log.ts";
import { JoinDefinition } from "../../src/gen/kataremote/podvm/v1/admin.ts";
import { PodVmDefinition } from "../../src/gen/kataremote/podvm/v1/podvm.ts";
import { createClient } from "../../src/grpc/index.ts";
import { makeCsr, newKeyPair } from "../../src/identity/index.ts";
import { openRemote } from "../../src/shim/hypervisor/index.ts";
import { vmRequest } from "../conformance/hypervisor.ts";
import { AdaptorUnderTest, call } from "../fakes/adaptor-under-test.ts";

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

describe("a node of another machine", { timeout: 60_000 }, () => {
  let tested: AdaptorUnderTest;
  let now = new Date();
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "join-"));
    const listen = {
      ...{ host: "127.0.0.1", port: await freePort(), joinPort: await freePort() },
      serverNames: ["127.0.0.1"],
    };
    tested = await AdaptorUnderTest.open({ config: { grpc: { listen } }, deps: { now: () => now } });
  });
  after(async () => {
    await tested[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });
  const token = (change: object = {}) => tested.admin.createJoinToken(change, call());
  const joins = async (made: Awaited<ReturnType<typeof token>>, nodeId: string, keyPem = newKeyPair().keyPem) => {
    const client = createClient(JoinDefinition, { address: made.joinAddress, tls: { caPem: made.caPem } });
    try {
      return await client.joinNode({ nodeId, csrPem: makeCsr(keyPem, ""), token: made.token }, call());
    } finally {
      client.close();
    }
  };

  it("joins with a token, and is itself from then on, also without the token", async () => {
    const made = await token();
    const joinFile = join(dir, "join.json");
    await writeFile(joinFile, JSON.stringify(made));
    const open = () =>
      openRemote({
        ...{ address: "unused:1", joinFile, nodeId: "node-7", bootId: "b", patienceMs: 10_000, log: silentLogger() },
        ...{ stateDir: join(dir, "state"), runDir: join(dir, "run") },
      });
    const hypervisor = await open();
    const request = vmRequest();
    await hypervisor.createVm(request, withDeadline(10_000));
    await hypervisor.startVm(request.sandboxId, withDeadline(10_000));
    assert.equal((await tested.json<{ nodeId: string }>(`/v1/sandboxes/${request.sandboxId}`)).nodeId, "node-7");
    await hypervisor.close();
    for (const name of ["node.key", "adaptor-node.crt"]) {
      assert.equal((await stat(join(dir, "state", name))).mode & 0o777, 0o600);
    }
    await rm(joinFile);
    const again = await open();
    await again.stopVm(request.sandboxId, "over", withDeadline(10_000));
    await again.close();
  });

  it("needs a token that is good, its own, and not over", async () => {
    const forOne = await token({ nodeId: "node-1" });
    await assert.rejects(joins(forOne, "node-2"), { code: "permission_denied" });
    await joins(forOne, "node-1");
    await assert.rejects(joins(forOne, "node-1"), { code: "permission_denied" }, "with another key");
    const forAny = await token();
    const key = newKeyPair().keyPem;
    await joins(forAny, "node-3", key);
    await joins(forAny, "node-3", key); // its answer was lost
    await assert.rejects(joins(forAny, "node-4", key), { code: "permission_denied" });
    await assert.rejects(joins({ ...forAny, token: "x" }, "node-3"), { code: "unauthenticated" });
    const [id] = forAny.token.split(".");
    await assert.rejects(joins({ ...forAny, token: `${id}.${"A".repeat(43)}` }, "node-3"), { code: "unauthenticated" });
    const short = await token({ ttlSeconds: 60n });
    now = new Date(now.getTime() + 61_000);
    await assert.rejects(joins(short, "node-5"), { code: "unauthenticated", message: /make a new one/ });
  });

  it("gets nothing else from the join door, and nothing from the others without a certificate", async () => {
    const made = await token();
    const address = made.joinAddress;
    const door = createClient(PodVmDefinition, { address, tls: { caPem: made.caPem } });
    await assert.rejects(door.version({}, call(5_000)), { code: "unimplemented" });
    door.close();
    const bare = createClient(PodVmDefinition, { address: made.address, tls: { caPem: made.caPem } });
    await assert.rejects(bare.version({}, call(5_000)), { code: "unavailable" });
    bare.close();
  });

  it("is known to the store by the hash of its token only", async () => {
    const { token: secret } = await token();
    const bytes = await readFile(join(tested.dir, "store.sqlite-wal"), "latin1");
    const [id = "", rest = ""] = secret.split(".");
    assert.ok(bytes.includes(id) && !bytes.includes(rest));
  });

  it("cannot have a token where the adaptor has no door for it", async () => {
    await using local = await AdaptorUnderTest.open();
    await assert.rejects(local.admin.createJoinToken({}, call()), {
      code: "failed_precondition",
      message: /grpc\.listen/,
    });
    await assert.rejects(token({ ttlSeconds: 99_999_999n }), { code: "invalid_argument" });
  });
});

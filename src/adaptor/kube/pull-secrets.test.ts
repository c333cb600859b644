import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { withDeadline } from "../../base/call.ts";
import { silentLogger } from "../../base/log.ts";
import { makeStockVmIdentity } from "../../identity/index.ts";
import { KubeReader } from "./kube-reader.ts";
import { pullSecretLookup } from "./pull-secrets.ts";

const base64 = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64");
const auth = (registry: string, word: string) => ({ [registry]: { auth: word } });

const OBJECTS: Record<string, object> = {
  "pods/web": { spec: { serviceAccountName: "sa", imagePullSecrets: [{ name: "own" }, { name: "missing" }] } },
  "pods/plain": { spec: {} },
  "pods/odd": { spec: { imagePullSecrets: [{ name: "broken" }, { name: "../../x" }] } },
  "serviceaccounts/sa": { imagePullSecrets: [{ name: "account" }] },
  "serviceaccounts/default": {},
  "secrets/account": { data: { ".dockerconfigjson": base64({ auths: { ...auth("a", "1"), ...auth("b", "1") } }) } },
  "secrets/own": { data: { ".dockercfg": base64(auth("b", "2")) } },
  "secrets/broken": { data: { ".dockerconfigjson": Buffer.from("{").toString("base64") } },
};

async function cluster() {
  const { certificatePem, keyPem, caPem } = makeStockVmIdentity("localhost", new Date());
  const dir = await mkdtemp(join(tmpdir(), "kube-"));
  await writeFile(join(dir, "token"), "t0k\n");
  await writeFile(join(dir, "ca.crt"), caPem);
  const asked: string[] = [];
  const server = createServer({ key: keyPem, cert: certificatePem }, (request, response) => {
    asked.push(request.url ?? "");
    const object = OBJECTS[(request.url ?? "").replace("/api/v1/namespaces/default/", "")];
    if (request.headers.authorization !== "Bearer t0k") response.writeHead(401).end();
    else if (request.url?.includes("/forbidden") === true) response.writeHead(403).end("no");
    else if (object === undefined) response.writeHead(404).end("{}");
    else response.end(JSON.stringify(object));
  });
  server.listen(0, "localhost");
  await once(server, "listening");
  const reader = new KubeReader({ host: "localhost", port: (server.address() as AddressInfo).port, accountDir: dir });
  return {
    ...{ reader, asked, dir },
    lookup: (name: string) =>
      pullSecretLookup({ reader, log: silentLogger() })({ namespace: "default", name, uid: "" }),
    [Symbol.asyncDispose]: async () => {
      reader.close();
      server.close();
      await rm(dir, { recursive: true });
    },
  };
}

describe("pull secrets", () => {
  it("are the service account's, then the pod's own; one that is not there is left out", async () => {
    await using c = await cluster();
    assert.deepEqual(JSON.parse((await c.lookup("web")) ?? ""), { auths: { a: { auth: "1" }, b: { auth: "2" } } });
    assert.equal(await c.lookup("plain"), undefined);
  });

  it("that are broken are named; a name that is none is never asked for", async () => {
    await using c = await cluster();
    await assert.rejects(c.lookup("odd"), /pull secret broken is not JSON/);
    assert.equal(await c.lookup("../nodes"), undefined);
    assert.ok(c.asked.every((path) => !path.includes("..")));
  });

  it("are done without when the cluster says no or nothing", async () => {
    await using c = await cluster();
    assert.equal(await c.lookup("gone"), undefined);
    await assert.rejects(c.reader.get("/forbidden", withDeadline(5000)), { code: "permission_denied" });
    await writeFile(join(c.dir, "token"), "other");
    assert.equal(await c.lookup("web"), undefined);
    await assert.rejects(c.reader.get("/x", withDeadline(5000)), { code: "unauthenticated" });
  });
});

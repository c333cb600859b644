import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { AdaptorUnderTest } from "../../../test/fakes/adaptor-under-test.ts";
import { Fault } from "../../base/fault.ts";
import { silentLogger } from "../../base/log.ts";
import { makeStockVmIdentity } from "../../identity/index.ts";
import type { AdaptorEvent } from "../podvm/index.ts";
import { KubeEvents } from "./kube-events.ts";
import { KubeReader } from "./kube-reader.ts";

interface PostedEvent {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly involvedObject: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
const SUBDOMAIN = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;

/** What the API server finds wrong with a new Event. Source: kubernetes/kubernetes, pkg/apis/core/validation/events.go */
function problemsOf(event: PostedEvent, namespace: string): string[] {
  const problems: string[] = [];
  const need = (good: boolean, what: string): void => void (good || problems.push(what));
  const { metadata, involvedObject, firstTimestamp, lastTimestamp } = event;
  need(event.apiVersion === "v1" && event.kind === "Event", "not a core/v1 Event");
  need(metadata.namespace === namespace, "the namespace of the provided object does not match that of the request");
  need(SUBDOMAIN.test(metadata.name) && metadata.name.length <= 253, "metadata.name is no DNS subdomain");
  need(involvedObject.namespace === metadata.namespace, "involvedObject.namespace: does not match event.namespace");
  need(["Normal", "Warning"].includes(String(event.type)), "type has an invalid value");
  need(Buffer.byteLength(String(event.message)) <= 1024, "message can have at most 1024 characters");
  need(TIME.test(String(firstTimestamp)) && TIME.test(String(lastTimestamp)), "timestamps are not RFC 3339");
  const known = ["apiVersion", "kind", "metadata", "involvedObject", "reason", "message", "type", "count", "source"];
  const fields = new Set([...known, "firstTimestamp", "lastTimestamp", "reportingComponent", "reportingInstance"]);
  need(
    Object.keys(event).every((k) => fields.has(k)),
    "unknown field",
  );
  return problems;
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const part of request) text += String(part);
  return text;
}

/** An API server that takes Events as the real one does. */
async function cluster() {
  const { certificatePem, keyPem, caPem } = makeStockVmIdentity("localhost", new Date());
  const dir = await mkdtemp(join(tmpdir(), "kube-"));
  for (const [name, text] of Object.entries({ token: "t0k\n", "ca.crt": caPem, namespace: "kata-system" })) {
    await writeFile(join(dir, name), text);
  }
  const events: PostedEvent[] = [];
  const answers: number[] = [];
  const server = createServer({ key: keyPem, cert: certificatePem }, async (request, response) => {
    const reply = (status: number, object: object): void => void response.writeHead(status).end(JSON.stringify(object));
    const status = (code: number, message: string): void => reply(code, { kind: "Status", code, message });
    const text = await textOf(request);
    if (request.headers.authorization !== "Bearer t0k") return status(401, "Unauthorized");
    if (request.method === "GET") {
      const own = request.url === "/api/v1/namespaces/kata-system/pods/adaptor-0";
      return own ? reply(200, { metadata: { uid: "own-uid" } }) : status(404, "not found");
    }
    const namespace = /^\/api\/v1\/namespaces\/([a-z0-9-]+)\/events$/.exec(request.url ?? "")?.[1];
    if (request.method !== "POST" || namespace === undefined) return status(405, "method not allowed");
    if (request.headers["content-type"] !== "application/json") return status(415, "unsupported media type");
    const refused = answers.shift();
    if (refused !== undefined) return status(refused, "refused for a test");
    const event = JSON.parse(text) as PostedEvent;
    const problems = problemsOf(event, namespace);
    if (problems.length > 0) return status(422, problems.join(", "));
    if (events.some((e) => e.metadata.name === event.metadata.name)) return status(409, "already exists");
    events.push(event);
    return reply(201, event);
  });
  server.listen(0, "localhost");
  await once(server, "listening");
  const reader = new KubeReader({ host: "localhost", port: (server.address() as AddressInfo).port, accountDir: dir });
  return {
    ...{ reader, events, answers },
    open: (log = silentLogger()) => new KubeEvents({ cluster: reader, podName: "adaptor-0", log }),
    [Symbol.asyncDispose]: async () => {
      reader.close();
      server.closeAllConnections();
      server.close();
      await rm(dir, { recursive: true });
    },
  };
}

async function until(what: string, check: () => boolean): Promise<void> {
  const end = Date.now() + 15_000;
  while (!check()) {
    if (Date.now() > end) assert.fail(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const stuck = (message = "a deletion is not over"): AdaptorEvent => ({
  ...{ at: "2026-11-24T12:00:00.123Z", kind: "DeleteStuck", message, sandbox: "s", operation: "o" },
});
const web = { namespace: "shop", name: "web-7d9.x", uid: "u-1" };

describe("Kubernetes Events", { timeout: 60_000 }, () => {
  it("are posted at the pod that they are about, where `kubectl describe` finds them", async () => {
    await using c = await cluster();
    await using kube = c.open();
    kube.post(stuck(), web);
    await until("posted", () => c.events.length === 1);
    const { metadata, ...event } = c.events[0] as PostedEvent;
    assert.match(metadata.name, /^web-7d9\.x\.[0-9a-f]{16}$/);
    assert.deepEqual(event, {
      ...{ apiVersion: "v1", kind: "Event", count: 1, type: "Warning" },
      involvedObject: { apiVersion: "v1", kind: "Pod", ...web },
      ...{ reason: "DeleteStuck", message: "a deletion is not over" },
      ...{ firstTimestamp: "2026-11-24T12:00:00Z", lastTimestamp: "2026-11-24T12:00:00Z" },
      source: { component: "kata-remote-adaptor" },
      ...{ reportingComponent: "kata-remote-adaptor", reportingInstance: "adaptor-0" },
    });
  });

  it("are posted at the adaptor's own pod when they are about none, or about a sandbox that no kubelet made", async () => {
    await using c = await cluster();
    await using kube = c.open();
    kube.post({ at: "2026-11-24T12:00:00Z", kind: "RecoveryOver", message: "over" }, undefined);
    kube.post(stuck(), { namespace: "", name: "", uid: "" });
    kube.post(stuck("x"), { namespace: "../kube-system", name: "a/b", uid: "u" });
    await until("posted", () => c.events.length === 3);
    const own = { apiVersion: "v1", kind: "Pod", namespace: "kata-system", name: "adaptor-0", uid: "own-uid" };
    for (const { involvedObject } of c.events) assert.deepEqual(involvedObject, own);
    assert.deepEqual(
      c.events.map((e) => e.type),
      ["Normal", "Warning", "Warning"],
    );
  });

  it("are there once, however often they are told and the answer is lost", async () => {
    await using c = await cluster();
    await using kube = c.open();
    c.answers.push(503, 500);
    for (let n = 0; n < 3; n++) kube.post(stuck(), web);
    kube.post(stuck("the last one"), web);
    await until("posted", () => c.events.some((e) => e.message === "the last one"));
    assert.equal(c.events.length, 2);
  });

  it("are cut to what the API server takes, between two characters", async () => {
    await using c = await cluster();
    await using kube = c.open();
    kube.post(stuck(`a${"ü".repeat(2000)}`), { ...web, name: `p${"x".repeat(251)}` });
    await until("posted", () => c.events.length === 1);
    assert.match(String(c.events[0]?.message), /^aü+\.\.\.$/);
  });

  it("are left out where the adaptor may not post them, and the log says what to do", async () => {
    await using c = await cluster();
    const lines: string[] = [];
    const log = Object.assign(silentLogger(), { warn: (_: object, line: string) => void lines.push(line) });
    await using kube = c.open(log);
    c.answers.push(403);
    kube.post(stuck(), web);
    kube.post(stuck("the next one"), web);
    await until("the next one is posted", () => c.events.length === 1);
    assert.match(lines.join(""), /may not post a Kubernetes Event.*kubernetes\.events = false/);
  });

  it("tell of a deletion that is stuck in the cloud, at its pod", async () => {
    await using c = await cluster();
    await using kube = c.open();
    await using tested = await AdaptorUnderTest.open({
      config: { reconcile: { intervalMs: 50, lostIntervalMs: 50, orphanGraceMs: 0, stuckDeleteMs: 300 } },
      deps: { onEvent: (event, pod) => kube.post(event, pod) },
    });
    const id = await tested.createVm();
    await tested.startVm(id);
    tested.provider.knobs.deleteFaults.push(
      new Fault("unavailable", "the zone is down", { retryAfterMs: 60_000 }, { retryable: true }),
    );
    await tested.client.stopVm({ sandboxId: id }, { signal: AbortSignal.timeout(5_000) });
    await until("posted", () => c.events.some((e) => e.reason === "DeleteStuck"));
    const event = c.events.find((e) => e.reason === "DeleteStuck");
    assert.deepEqual(event?.involvedObject, {
      apiVersion: "v1",
      kind: "Pod",
      namespace: "default",
      name: "web",
      uid: "u",
    });
    assert.match(String(event?.message), /a deletion is not over.*the zone is down/);
  });
});

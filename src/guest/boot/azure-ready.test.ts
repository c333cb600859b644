import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { GuestLog } from "../system/guest-log.ts";
import { reportReady } from "./azure-ready.ts";

/** As the WireServer answers; other elements are left out. */
const GOAL_STATE = `<?xml version="1.0" encoding="utf-8"?><GoalState><Version>2015-04-05</Version>
  <Incarnation>3</Incarnation><Machine><ExpectedState>Started</ExpectedState></Machine>
  <Container><ContainerId>c-1</ContainerId><RoleInstanceList><RoleInstance><InstanceId>i-1.name</InstanceId>
  </RoleInstance></RoleInstanceList></Container></GoalState>`;

let server: Server;
let host: string;
let asked: { readonly line: string; readonly version: unknown; readonly body: string }[];
let failures: number;
let lines: string[];
const log: GuestLog = {
  info: (message) => lines.push(`info ${message}`),
  warn: (message) => lines.push(`warn ${message}`),
  error: (message) => lines.push(`error ${message}`),
};

beforeEach(async () => {
  [asked, lines, failures] = [[], [], 0];
  server = createServer((request, response) => {
    void read(request).then((body) => {
      asked.push({ line: `${request.method} ${request.url}`, version: request.headers["x-ms-version"], body });
      failures -= 1;
      if (failures >= 0) response.statusCode = 503;
      response.end(request.method === "GET" ? GOAL_STATE : "");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

async function read(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) text += chunk as string;
  return text;
}

describe("reporting to Azure", () => {
  it("answers the goal state with Ready", async () => {
    await reportReady(log, { host });
    assert.deepEqual(
      asked.map((a) => [a.line, a.version]),
      [
        ["GET /machine/?comp=goalstate", "2012-11-30"],
        ["POST /machine?comp=health", "2012-11-30"],
      ],
    );
    const body = asked[1]?.body ?? "";
    assert.match(body, /<GoalStateIncarnation>3<\/GoalStateIncarnation>/);
    assert.match(body, /<ContainerId>c-1<\/ContainerId>/);
    assert.match(body, /<InstanceId>i-1\.name<\/InstanceId><Health><State>Ready<\/State><\/Health>/);
    assert.deepEqual(lines, ["info reported to Azure as ready"]);
  });

  it("is repeated while nobody listens", async () => {
    failures = 2;
    await reportReady(log, { host, pauseMs: 5 });
    assert.deepEqual(lines, ["info reported to Azure as ready"]);
    assert.equal(asked.length, 4);
  });

  it("is given up in the end, with a warning: the pod runs all the same", async () => {
    failures = 1000;
    await reportReady(log, { host, pauseMs: 1 });
    assert.deepEqual(lines, ["warn could not report to Azure as ready"]);
    assert.equal(asked.length, 20);
  });
});

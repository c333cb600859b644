import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Fault } from "../../base/fault.ts";
import { ManagementServer } from "./management-server.ts";

describe("management socket of a pod", () => {
  const folder = mkdtempSync(join(tmpdir(), "mgmt-"));
  const socketPath = join(folder, "pod", "shim-monitor.sock");
  const said: unknown[] = [];
  let server: ManagementServer;
  before(async () => {
    server = await ManagementServer.open({
      path: socketPath,
      agent: {
        metrics: async () => "kata_guest_load 1\n",
        ipTables: async (v6) => Buffer.from(v6 ? "six" : "four"),
        setIpTables: async (v6, data) => {
          said.push([v6, data.toString()]);
          return Buffer.alloc(0);
        },
        setPolicy: async () => {
          throw new Fault("unimplemented", "the guest takes no policy");
        },
      },
    });
  });
  after(async () => {
    await server.close();
    assert.equal(existsSync(join(folder, "pod")), false);
    rmSync(folder, { recursive: true });
  });

  const ask = (method: string, path: string, body = ""): Promise<string> =>
    new Promise((resolve, reject) => {
      const sent = request({ socketPath, method, path }, (response) => {
        let text = `${response.statusCode} `;
        response.setEncoding("utf8").on("data", (d: string) => {
          text += d;
        });
        response.on("end", () => resolve(text));
      });
      sent.on("error", reject).end(body);
    });

  it("belongs to its owner", () => assert.equal(statSync(socketPath).mode & 0o777, 0o600));

  for (const [method, path, body, expected] of [
    ["GET", "/metrics", "", "200 kata_guest_load 1\n"],
    ["GET", "/iptables", "", "200 four"],
    ["GET", "/ip6tables", "", "200 six"],
    ["PUT", "/ip6tables", "*nat", "200 "],
    ["PUT", "/policy", "package p", "501 the guest takes no policy\n"],
    ["GET", "/agent-url", "", "501 the agent of this pod is reached through the node daemon only: use kata-remote\n"],
    ["GET", "/direct-volume/stats?path=%2Fx", "", "501 this pod has no direct volumes\n"],
    ["GET", "/debug/vars", "", "404 404 page not found\n"],
  ] as const) {
    it(`${method} ${path}`, async () => assert.equal(await ask(method, path, body), expected));
  }

  it("passes rules on as they are", () => assert.deepEqual(said, [[true, "*nat"]]));
});

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { withDeadline } from "../../../base/call.ts";
import { askUapi, checkSet, GET_REQUEST, readGet, setRequest } from "./uapi.ts";

const key = (first: number): string => Buffer.alloc(32, first).toString("base64");
const hex = (first: number): string => Buffer.alloc(32, first).toString("hex");

describe("wireguard-go's configuration protocol", () => {
  let dir: string;
  let server: Server;
  let answer = (_request: string): string => "errno=0\n\n";
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "uapi-"));
    server = createServer((socket) => {
      socket.setEncoding("utf8").on("data", (request: string) => {
        const text = answer(request);
        if (text === "") socket.destroy();
        else for (const part of [text.slice(0, 5), text.slice(5)]) socket.write(part);
      });
    });
    await new Promise<void>((resolve) => server.listen(join(dir, "s"), resolve));
  });
  after(async () => {
    server.close();
    await rm(dir, { recursive: true });
  });

  it("takes keys and peers in hexadecimal, an endpoint over IPv6 in brackets", () => {
    assert.equal(setRequest({ privateKey: key(1) }), `set=1\nprivate_key=${hex(1)}\n\n`);
    const endpoint = { address: "2001:db8::9", port: 4789 };
    const peer = { publicKey: key(2), endpoint, allowedAddress: "192.0.0.3", keepAliveSeconds: 25 };
    assert.equal(
      setRequest({ peers: [peer] }),
      `set=1\nreplace_peers=true\npublic_key=${hex(2)}\nendpoint=[2001:db8::9]:4789\n` +
        "persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=192.0.0.3/32\n\n",
    );
    assert.match(
      setRequest({ peers: [{ publicKey: key(2), allowedAddress: "fd00::1" }] }),
      /allowed_ip=fd00::1\/128\n/,
    );
  });

  it("answers in pieces", async () => {
    answer = (request) => (request === GET_REQUEST ? `private_key=${hex(3)}\nlisten_port=5\nerrno=0\n\n` : "");
    const got = await askUapi(join(dir, "s"), GET_REQUEST, withDeadline(10_000));
    assert.deepEqual(readGet(got), { privateKey: key(3), listenPort: 5 });
    assert.deepEqual(readGet("listen_port=0\nerrno=0\n\n"), { listenPort: 0 });
  });

  it("says by its number what it refuses", () => {
    assert.throws(() => checkSet("errno=-22\n\n"), { code: "internal", message: /errno -22/ });
    assert.throws(() => readGet("errno=-1\n\n"), { code: "internal", message: /errno -1/ });
    checkSet("errno=0\n\n");
  });

  it("is not there when its process has ended, or ends in the middle", async () => {
    answer = () => "";
    await assert.rejects(askUapi(join(dir, "s"), GET_REQUEST, withDeadline(10_000)), { code: "unavailable" });
    await assert.rejects(askUapi(join(dir, "nobody"), GET_REQUEST, withDeadline(10_000)), { code: "unavailable" });
  });
});

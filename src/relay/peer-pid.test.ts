import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { peerPid } from "./peer-pid.ts";

it("the process behind a unix socket is known, also another one than this", async () => {
  const dir = await mkdtemp(join(tmpdir(), "peer-pid-"));
  const path = join(dir, "s");
  const server = createServer().listen(path);
  try {
    await once(server, "listening");
    const here = once(server, "connection");
    const own = connect(path);
    const [mine] = (await here) as [Socket];
    assert.equal(await peerPid(mine), process.pid);
    own.destroy();
    const there = once(server, "connection");
    const program = `require("node:net").connect(${JSON.stringify(path)})`;
    const child = spawn(process.execPath, ["-e", program], { stdio: "ignore" });
    const [other] = (await there) as [Socket];
    assert.equal(await peerPid(other), child.pid);
    const ended = once(child, "exit");
    other.destroy();
    await ended;
    await assert.rejects(peerPid(other), { code: "failed_precondition", message: /hostPID/ });
  } finally {
    server.close();
    await rm(dir, { recursive: true });
  }
});

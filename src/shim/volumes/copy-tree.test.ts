import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../base/call.ts";
import type { CopyFileRequest } from "../../gen/agent/agent.ts";
import { copyTree, measureCopy } from "./copy-tree.ts";

let dir: string;
let requests: CopyFileRequest[];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "copy-"));
  requests = [];
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const agent = {
  async copyFile(request: CopyFileRequest): Promise<void> {
    requests.push({ ...request, data: Buffer.from(request.data) });
  },
};
const mountOf = (source: string) => ({
  field: "mounts[4]",
  source,
  destination: "/etc/x",
  guestPath: "/shared/c1-0-x",
});
const copy = (source: string, maxMiB = 64) => copyTree(agent, mountOf(source), { maxMiB }, background());
const seen = () => requests.map((r) => [r.path, r.fileMode.toString(8), r.data.toString()]);

describe("copyTree", () => {
  it("copies a file with its mode and owner", async () => {
    await writeFile(join(dir, "f"), "content");
    await chmod(join(dir, "f"), 0o640);
    await copy(join(dir, "f"));
    assert.deepEqual(seen(), [["/shared/c1-0-x", "100640", "content"]]);
    assert.deepEqual(
      [requests[0]?.fileSize, requests[0]?.dirMode.toString(8), requests[0]?.uid],
      [7n, "40750", process.getuid?.()],
    );
  });

  it("sends an empty file as one request", async () => {
    await writeFile(join(dir, "f"), "");
    await copy(join(dir, "f"));
    assert.deepEqual([requests.length, requests[0]?.fileSize], [1, 0n]);
  });

  it("sends large files in chunks of 1 MiB, in order, each with the total", async () => {
    const content = Buffer.from(Array.from({ length: (2 << 20) + 5 }, (_, i) => i % 251));
    await writeFile(join(dir, "f"), content);
    await copy(join(dir, "f"));
    assert.deepEqual(
      requests.map((r) => [Number(r.offset), r.data.length, Number(r.fileSize)]),
      [
        [0, 1 << 20, content.length],
        [1 << 20, 1 << 20, content.length],
        [2 << 20, 5, content.length],
      ],
    );
    assert.ok(Buffer.concat(requests.map((r) => r.data)).equals(content));
  });

  it("copies a tree as kubelet makes it: directories first, links as links", async () => {
    await mkdir(join(dir, "v", "..2026"), { recursive: true });
    await writeFile(join(dir, "v", "..2026", "key"), "value");
    await symlink("..2026", join(dir, "v", "..data"));
    await symlink("..data/key", join(dir, "v", "key"));
    await copy(join(dir, "v"));
    assert.deepEqual(
      requests.slice(0, 2).map((r) => r.path),
      ["/shared/c1-0-x", "/shared/c1-0-x/..2026"],
    );
    assert.deepEqual(seen().slice(2).sort(), [
      ["/shared/c1-0-x/..2026/key", "100644", "value"],
      ["/shared/c1-0-x/..data", "120777", "..2026"],
      ["/shared/c1-0-x/key", "120777", "..data/key"],
    ]);
  });

  it("follows a link that is the source itself", async () => {
    await writeFile(join(dir, "f"), "content");
    await symlink("f", join(dir, "link"));
    await copy(join(dir, "link"));
    assert.deepEqual(seen()[0]?.slice(1), ["100644", "content"]);
  });

  it("names a mount that is too large, before anything is sent", async () => {
    await writeFile(join(dir, "f"), "");
    await truncate(join(dir, "f"), (1 << 20) + 1);
    const message =
      /mounts\[4\]\.source = ".*f" \(at \/etc\/x\) cannot be copied into the VM: it holds more than 1 MiB/;
    await assert.rejects(copy(join(dir, "f"), 1), { code: "failed_precondition", message });
    await assert.rejects(measureCopy(mountOf(join(dir, "f")), { maxMiB: 1 }), { message });
    assert.deepEqual(requests, []);
  });

  it("names what is neither file, directory nor link", async () => {
    execFileSync("mkfifo", [join(dir, "pipe")]);
    await assert.rejects(copy(dir), { message: /pipe is neither file, directory nor symbolic link/ });
  });
});

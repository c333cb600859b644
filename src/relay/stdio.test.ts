import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { until } from "../../test/e2e/harness/processes.ts";
import { RelayFixture } from "../../test/support/relay-fixture.ts";
import { StubGuest } from "../../test/support/stub-guest.ts";
import { TcpProxy } from "../../test/support/tcp-proxy.ts";
import { background, withDeadline } from "../base/call.ts";
import type { StdioSpec } from "./relay.ts";

const run = promisify(execFile);
const MiB = 1 << 20;

/** A connected guest and three FIFOs. */
async function bench() {
  const fixture = await RelayFixture.create();
  const guest = await StubGuest.start(fixture.ca.caPem);
  const proxy = await TcpProxy.open(() => guest.port);
  await fixture.relay.connectGuest(fixture.spec(proxy.port), withDeadline(10_000));
  const fifo = (name: string): string => join(fixture.dir, name);
  await run("mkfifo", ["in", "out", "err"].map(fifo));
  const spec = (change: Partial<StdioSpec> = {}): StdioSpec => ({
    key: "k",
    sandboxId: fixture.sandboxId,
    containerId: "c1",
    execId: "c1",
    terminal: false,
    stdin: "",
    stdout: "",
    stderr: "",
    ...change,
  });
  return {
    ...{ fixture, relay: fixture.relay, guest, proxy, fifo, spec },
    [Symbol.asyncDispose]: async () => {
      await fixture[Symbol.asyncDispose]();
      await proxy.close();
      await guest.close();
    },
  };
}

const sha = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

/** SHA-256 of all that a FIFO gives until it ends. */
async function digestOf(path: string): Promise<string> {
  const { stdout } = await run("sh", ["-c", `sha256sum < "$1"`, "sh", path]);
  return stdout.slice(0, 64);
}

describe("output", () => {
  it("copies 50 MB through a FIFO although the path breaks again and again", async () => {
    await using b = await bench();
    b.guest.output.stdout = randomBytes(50 * MiB);
    b.guest.chunkBytes = 300_000;
    const digest = digestOf(b.fifo("out"));
    let reads = 0;
    b.guest.beforeRead = async () => {
      if (++reads % 40 === 0) b.proxy.cut();
    };
    await b.relay.attachStdio(b.spec({ stdout: `fifo://${b.fifo("out")}` }), background());
    await b.relay.stdioDrained("k");
    await b.relay.detachStdio("k");
    assert.equal(await digest, sha(b.guest.output.stdout));
    assert.ok(reads > 170, `${reads} reads`);
  });

  it("appends to a file and keeps stderr apart", async () => {
    await using b = await bench();
    b.guest.output = { stdout: Buffer.from("out\n"), stderr: Buffer.from("err\n") };
    const log = join(b.fixture.dir, "logs", "a.log");
    await b.relay.attachStdio(b.spec({ stdout: `file://${log}`, stderr: `file://${log}.err` }), background());
    await b.relay.stdioDrained("k");
    await b.relay.detachStdio("k");
    await b.relay.attachStdio(b.spec({ stdout: `file://${log}` }), background());
    await b.relay.stdioDrained("k");
    assert.equal(await readFile(log, "utf8"), "out\nout\n");
    assert.equal(await readFile(`${log}.err`, "utf8"), "err\n");
  });

  it("goes to a logger program, with its arguments and whose output it is", async () => {
    await using b = await bench();
    b.guest.output = { stdout: Buffer.from("out\n"), stderr: Buffer.from("err\n") };
    const logger = join(b.fixture.dir, "logger");
    const script =
      'exec 5>&-; cat <&3 > "$2.out" & cat <&4 > "$2.err"; wait; env | sort > "$2.env"; echo "$*" > "$2.end"';
    await writeFile(logger, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const to = join(b.fixture.dir, "log file");
    const uri = `binary://${logger}?to=${encodeURIComponent(to)}&to=ignored`;
    await b.relay.attachStdio(b.spec({ stdout: uri, stderr: uri, namespace: "k8s.io" }), background());
    await b.relay.stdioDrained("k");
    await b.relay.detachStdio("k");
    const written = (): boolean => existsSync(`${to}.end`) && readFileSync(`${to}.end`).length > 0;
    await until("the logger to end", 20_000, written);
    const text = (part: string): Promise<string> => readFile(`${to}.${part}`, "utf8");
    assert.deepEqual(await Promise.all(["out", "err", "end"].map(text)), ["out\n", "err\n", `to ${to}\n`]);
    assert.match(await text("env"), /CONTAINER_ID=c1\nCONTAINER_NAMESPACE=k8s\.io\n/);
  });

  it("of a terminal has no stderr", async () => {
    await using b = await bench();
    await b.relay.attachStdio(b.spec({ terminal: true, stderr: "/nowhere" }), background());
    await b.relay.stdioDrained("k");
    assert.equal(b.guest.seen.get("ReadStderr"), undefined);
    assert.equal(b.guest.stdinClosed, false);
  });

  it("waits while nobody reads, and is all there for a reader that comes later", async () => {
    await using b = await bench();
    b.guest.output.stdout = randomBytes(3 * MiB);
    await b.relay.attachStdio(b.spec({ stdout: b.fifo("out") }), background());
    let drained = false;
    const done = b.relay.stdioDrained("k").then(() => {
      drained = true;
    });
    while ((b.guest.seen.get("ReadStdout") ?? 0) < 2) await new Promise((r) => setTimeout(r, 5));
    assert.equal(drained, false);
    const digest = digestOf(b.fifo("out"));
    await done;
    await b.relay.detachStdio("k");
    assert.equal(await digest, sha(b.guest.output.stdout));
  });

  it("is dropped, not blocking the process, when the file cannot be written", async () => {
    await using b = await bench();
    b.guest.output.stdout = randomBytes(3 * MiB);
    await b.relay.attachStdio(b.spec({ stdout: "file:///dev/full" }), background());
    await b.relay.stdioDrained("k");
    assert.ok((b.guest.seen.get("ReadStdout") ?? 0) >= 4);
  });

  it("ends when the guest is lost", async () => {
    await using b = await bench();
    b.guest.beforeRead = () => new Promise(() => undefined);
    await b.relay.attachStdio(b.spec({ stdout: b.fifo("out") }), background());
    b.relay.declareLost(b.fixture.sandboxId, "gone");
    await b.relay.stdioDrained("k");
  });
});

describe("input", () => {
  it("copies 50 MB from a FIFO and closes stdin after the last byte, although the path breaks", async () => {
    await using b = await bench();
    const data = randomBytes(50 * MiB);
    const file = join(b.fixture.dir, "data");
    await writeFile(file, data);
    await b.relay.attachStdio(b.spec({ stdin: b.fifo("in") }), background());
    const cutter = setInterval(() => b.proxy.cut(), 40);
    await run("sh", ["-c", `cat "$1" > "$2"`, "sh", file, b.fifo("in")]);
    await b.relay.closeStdin("k", background());
    clearInterval(cutter);
    assert.equal(b.guest.stdinClosed, true);
    assert.equal(sha(Buffer.concat(b.guest.stdin)), sha(data));
  });

  it("is not over when a writer goes: another may come", async () => {
    await using b = await bench();
    await b.relay.attachStdio(b.spec({ stdin: b.fifo("in") }), background());
    for (const word of ["one", "two"]) {
      await run("sh", ["-c", `printf ${word} > "$1"`, "sh", b.fifo("in")]);
      while (!Buffer.concat(b.guest.stdin).toString().endsWith(word)) await new Promise((r) => setTimeout(r, 5));
      assert.equal(b.guest.stdinClosed, false);
    }
    await b.relay.closeStdin("k", background());
    assert.equal(Buffer.concat(b.guest.stdin).toString(), "onetwo");
    assert.equal(b.guest.stdinClosed, true);
  });

  it("is closed at once for a process without stdin", async () => {
    await using b = await bench();
    await b.relay.attachStdio(b.spec(), background());
    while (!b.guest.stdinClosed) await new Promise((r) => setTimeout(r, 5));
    await b.relay.closeStdin("k", background());
  });

  it("from a file ends with the file", async () => {
    await using b = await bench();
    await b.relay.attachStdio(b.spec({ stdin: "/dev/null" }), background());
    while (!b.guest.stdinClosed) await new Promise((r) => setTimeout(r, 5));
  });
});

describe("stdio that cannot be opened", () => {
  it("is named", async () => {
    await using b = await bench();
    const attach = (change: Partial<StdioSpec>): Promise<void> => b.relay.attachStdio(b.spec(change), background());
    const missing = b.fifo("missing");
    await assert.rejects(attach({ stdout: missing }), {
      code: "not_found",
      message: `stdio ${missing} cannot be opened`,
    });
    await assert.rejects(attach({ stderr: "binary:///usr/bin/logger?x=1" }), {
      code: "invalid_argument",
      message: /stderr "binary:/,
    });
    await assert.rejects(attach({ stdout: "binary:///no/such/logger" }), {
      code: "failed_precondition",
      message: "logger /no/such/logger cannot be run",
    });
    await assert.rejects(attach({ stdin: "file:///etc/passwd" }), { code: "unimplemented" });
    await assert.rejects(attach({ stdin: "relative" }), { code: "invalid_argument" });
    await assert.rejects(attach({ stdin: b.fixture.dir }), { message: /directory|cannot be opened/ });
    await attach({ stdout: b.fifo("out") });
    await attach({ stdout: b.fifo("out") }); // the next daemon does so
  });
});

describe("sending a tree", () => {
  it("starts over when its connection breaks", async () => {
    await using b = await bench();
    const dir = await mkdtemp(join(tmpdir(), "tree-"));
    try {
      await writeFile(join(dir, "file"), randomBytes(20 * MiB));
      let cuts = 0;
      b.guest.onTreeFrame = () => {
        if (++cuts <= 2) b.proxy.cut();
      };
      const receipt = await b.relay.sendTree(b.fixture.sandboxId, { treeId: "t1", path: dir }, background());
      assert.equal(receipt.skipped, false);
      assert.equal(receipt.sha256, sha(b.guest.trees.get("t1") ?? Buffer.alloc(0)));
      assert.ok(cuts > 2);
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  it("sends it once, and tells what the guest says against it", async () => {
    await using b = await bench();
    const dir = await mkdtemp(join(tmpdir(), "tree-"));
    try {
      await writeFile(join(dir, "file"), randomBytes(5 * MiB));
      const tree = { treeId: "t1", path: dir };
      const receipts = await Promise.all([1, 2].map(() => b.relay.sendTree(b.fixture.sandboxId, tree, background())));
      assert.deepEqual(receipts.map((receipt) => receipt.skipped).sort(), [false, true]);
      const sent = receipts.find((receipt) => !receipt.skipped);
      const tar = b.guest.trees.get("t1") ?? Buffer.alloc(0);
      assert.equal(sent?.sha256, sha(tar));
      assert.equal(sent?.bytes, tar.length);
      await writeFile(join(dir, "..", "x.tar"), tar);
      const listing = await run("tar", ["-tf", join(dir, "..", "x.tar")]);
      assert.match(listing.stdout, /^\.\/\n\.\/file\n$/);
      await rm(join(dir, "..", "x.tar"));

      b.guest.treeError = { code: "resource_exhausted", message: "disk of the pod VM is full" };
      await assert.rejects(b.relay.sendTree(b.fixture.sandboxId, { treeId: "t2", path: dir }, background()), {
        code: "resource_exhausted",
        message: /disk of the pod VM is full/,
      });
      b.guest.treeError = undefined;
      await assert.rejects(
        b.relay.sendTree(b.fixture.sandboxId, { treeId: "t3", path: join(dir, "no") }, background()),
        {
          code: "internal",
          message: /tar of root filesystem/,
        },
      );
      assert.equal(b.guest.trees.has("t3"), false);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

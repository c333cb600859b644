import assert from "node:assert/strict";
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { VERSION } from "../../base/version.ts";
import { DeleteResponse } from "../../gen/containerd/task/v2/shim.ts";
import { RuntimeInfo } from "../../gen/containerd/types/introspection.ts";
import { taskKey } from "../sandbox/index.ts";

const LAUNCHER = join(import.meta.dirname, "../../../deploy/bin/containerd-shim-kata-remote-v2");
const ADDRESS = "/run/containerd/containerd.sock";
const root = await mkdtemp(join(tmpdir(), "launcher-"));
const daemons = new Set<number>();

/** Stands in for kata-remote.mjs: a daemon that only opens doors, and commands that write down how they were called. */
const FAKE = `
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { createServer } from "node:net";
const run = process.env.KATA_REMOTE_RUN_DIR;
const [command, ...args] = process.argv.slice(2);
appendFileSync(run + "/calls", JSON.stringify({ command, args, pid: process.pid, cwd: process.cwd() }) + "\\n");
const open = (address) => {
  const path = run + "/s/" + createHash("sha256").update(address).digest("hex").slice(0, 32) + ".sock";
  rmSync(path, { force: true });
  return new Promise((resolve) => createServer((s) => s.end()).listen(path, resolve));
};
if (command === "node") {
  if (existsSync(run + "/die")) { console.error("no adaptor here"); process.exit(3); }
  rmSync(run + "/control.sock", { force: true });
  await open(args[args.indexOf("--door") + 1]);
  createServer((s) => s.on("data", async (d) => { await open(String(d)); s.end(); })).listen(run + "/control.sock", () => {
    writeFileSync(run + "/node.ready", process.pid + " " + readFileSync("/proc/self/stat", "utf8").split(") ")[1].split(" ")[19] + "\\n");
  });
  setTimeout(() => process.exit(0), 20_000);
} else if (command === "open-door") {
  const { connect } = await import("node:net");
  const s = connect(run + "/control.sock", () => s.write(args[0]));
  s.resume();
} else if (command === "shim-delete") process.stdout.write("deleted");
`;

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

let runDir: string;
let libDir: string;
let bundle: string;
let count = 0;

function launch(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  encoding: BufferEncoding = "utf8",
): Promise<Result> {
  return new Promise((resolve) => {
    const full = {
      ...process.env,
      PATH: `${join(process.execPath, "..")}:${process.env.PATH}`,
      KATA_REMOTE_RUN_DIR: runDir,
      KATA_REMOTE_LIB: libDir,
      TTRPC_ADDRESS: `${ADDRESS}.ttrpc`,
      ...env,
    };
    execFile("/bin/sh", [LAUNCHER, ...args], { cwd: bundle, env: full, encoding }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

const start = (address = ADDRESS, id = "c1"): Promise<Result> =>
  launch(["-namespace", "default", "-address", address, "-publish-binary", "/usr/bin/containerd", "-id", id, "start"]);

const doorOf = (address: string, namespace = "default"): string =>
  join(runDir, "s", `${createHash("sha256").update(`${namespace}@${address}`).digest("hex").slice(0, 32)}.sock`);

async function calls(): Promise<{ command: string; args: string[]; pid: number; cwd: string }[]> {
  const text = await readFile(join(runDir, "calls"), "utf8").catch(() => "");
  const parsed = text
    .split("\n")
    .filter((l) => l !== "")
    .map((l) => JSON.parse(l) as Awaited<ReturnType<typeof calls>>[number]);
  for (const { command, pid } of parsed) if (command === "node") daemons.add(pid);
  return parsed;
}

function connects(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => resolve(true));
    socket.on("error", () => resolve(false)).resume();
  });
}

async function startTime(pid: number | undefined): Promise<string | undefined> {
  return (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1]?.split(" ")[19];
}

/** A daemon lives. */
function locked(): Promise<boolean> {
  return new Promise((resolve) =>
    execFile("flock", ["-n", join(runDir, "node.lock"), "true"], (e) => resolve(e !== null)),
  );
}

beforeEach(async () => {
  const dir = join(root, String(++count));
  runDir = join(dir, "run");
  libDir = join(dir, "lib");
  bundle = join(dir, "bundle");
  for (const d of [runDir, libDir, bundle]) await mkdir(d, { recursive: true });
  await writeFile(join(libDir, "kata-remote.mjs"), FAKE);
});

after(async () => {
  for (const pid of daemons) {
    try {
      process.kill(pid);
    } catch {
      // It has ended by itself.
    }
  }
  await rm(root, { recursive: true, force: true });
});

const asRoot = { skip: process.getuid?.() === 0 ? false : "needs root: the daemon gets mounts of its own" };

describe("start without a daemon", asRoot, () => {
  it("starts one, prints its door and nothing else", async () => {
    const result = await start();
    assert.deepEqual(result, { code: 0, stdout: `unix://${doorOf(ADDRESS)}`, stderr: "" });
    assert.equal(await connects(doorOf(ADDRESS)), true);
    const [daemon, ...more] = await calls();
    assert.deepEqual(
      [daemon?.command, daemon?.args, daemon?.cwd, more],
      ["node", ["--door", `default@${ADDRESS}`], "/", []],
    );
  });

  it("gives the daemon its own session and mount namespace, and the lock", async () => {
    await start();
    const [daemon] = await calls();
    assert.ok(daemon);
    const session = (await readFile(`/proc/${daemon.pid}/stat`, "utf8")).split(") ")[1]?.split(" ")[3];
    assert.equal(Number(session), daemon.pid);
    const mounts = async (pid: number | "self"): Promise<bigint> =>
      (await stat(`/proc/${pid}/ns/mnt`, { bigint: true })).ino;
    assert.notEqual(await mounts(daemon.pid), await mounts("self"));
    assert.equal(await locked(), true);
  });

  it("starts one daemon for many starts at once", async () => {
    const results = await Promise.all(Array.from({ length: 8 }, (_, i) => start(ADDRESS, `c${i}`)));
    assert.deepEqual(
      new Set(results.map((r) => `${r.code} ${r.stdout} ${r.stderr}`)),
      new Set([`0 unix://${doorOf(ADDRESS)} `]),
    );
    assert.equal((await calls()).filter((c) => c.command === "node").length, 1);
  });

  it("tells what the daemon said when that ends at once", async () => {
    await writeFile(join(runDir, "die"), "");
    const { code, stdout, stderr } = await start();
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, /no adaptor here\nkata-remote: the node daemon ended before it was ready; see .*node\.log/);
  });

  it("does not take what a killed daemon left for a living one", async () => {
    await start();
    const [first] = await calls();
    assert.ok(first);
    process.kill(first.pid, "SIGKILL");
    while (await locked()) await setImmediate(); // its threads take a moment to end
    const result = await start();
    assert.deepEqual(result, { code: 0, stdout: `unix://${doorOf(ADDRESS)}`, stderr: "" });
    assert.equal(await connects(doorOf(ADDRESS)), true);
    assert.equal((await calls()).filter((c) => c.command === "node").length, 2);
  });

  it("hands the configuration file on", async () => {
    await launch(["-namespace", "default", "-address", ADDRESS, "-id", "c1", "start"], {
      KATA_REMOTE_NODE_CONFIG: "/some/where.toml",
    });
    assert.deepEqual((await calls())[0]?.args, ["--config", "/some/where.toml", "--door", `default@${ADDRESS}`]);
  });
});

describe("start with a living daemon", asRoot, () => {
  let daemon: ChildProcess;
  beforeEach(async () => {
    daemon = spawn("flock", ["--no-fork", join(runDir, "node.lock"), "sleep", "20"]);
    daemons.add(daemon.pid as number);
    await mkdir(join(runDir, "s"));
    await writeFile(join(runDir, "node.ready"), `${daemon.pid} ${await startTime(daemon.pid)}\n`);
    const script =
      "const [,p]=process.argv; require('net').createServer().listen(p, () => console.log('up')); setTimeout(process.exit, 20000)";
    const door = spawn(process.execPath, ["-e", script, doorOf(ADDRESS)]);
    daemons.add(door.pid as number);
    await new Promise((resolve) => door.stdout.once("data", resolve));
  });

  it("runs no Node, and no other program once it knows the door", async () => {
    const served = { code: 0, stdout: `unix://${doorOf(ADDRESS)}`, stderr: "" };
    assert.deepEqual(await start(), served);
    const args = ["-namespace", "default", "-address", ADDRESS, "-id", "c2", "start"];
    assert.deepEqual(await launch(args, { PATH: join(runDir, "nothing") }), served);
    assert.deepEqual(await calls(), []);
  });

  it("takes no process for the daemon that has only its pid", async () => {
    await writeFile(join(runDir, "node.ready"), `${process.pid} 1\n`);
    daemon.kill("SIGKILL");
    while (await locked()) await setImmediate();
    assert.deepEqual(await start(), { code: 0, stdout: `unix://${doorOf(ADDRESS)}`, stderr: "" });
    assert.equal((await calls()).filter((c) => c.command === "node").length, 1);
  });

  it("leaves address and what only it knows in the bundle, for the owner only", async () => {
    await start();
    assert.equal(await readFile(join(bundle, "address"), "utf8"), `unix://${doorOf(ADDRESS)}`);
    assert.equal(
      await readFile(join(bundle, "kata-remote.env"), "utf8"),
      `TTRPC_ADDRESS=${ADDRESS}.ttrpc\naddress=${ADDRESS}\nnamespace=default\nid=c1\npublish-binary=/usr/bin/containerd\ndebug=false\n`,
    );
    assert.equal((await stat(join(bundle, "kata-remote.env"))).mode & 0o777, 0o600);
  });

  it("opens containerd's log FIFO for a moment, so that its reader is not left waiting", async () => {
    execFileSync("mkfifo", [join(bundle, "log")]);
    const reader = spawn("cat", [join(bundle, "log")]);
    const ended = new Promise((resolve) => reader.once("exit", resolve));
    await start();
    assert.equal(await ended, 0);
    await start(); // and does not wait itself when there is none
  });

  it("says that a start has been, for the daemon that thinks of ending", async () => {
    await writeFile(join(runDir, "last-start"), "");
    await utimes(join(runDir, "last-start"), 1_000, 1_000);
    await start();
    assert.ok(Date.now() - (await stat(join(runDir, "last-start"))).mtimeMs < 5_000);
  });

  for (const args of [
    ["-namespace", "default", "-address", ADDRESS, "-id", "c1", "-debug", "start"],
    ["--namespace=default", `--address=${ADDRESS}`, "--id=c1", "--debug=true", "start"],
    ["-namespace", "default", `-address=${ADDRESS}`, "-publish-binary=", "-debug=0", "-id", "c1", "--", "start"],
    [
      "-socket",
      "",
      "-debug-socket",
      "y",
      "-bundle",
      "/b",
      "-namespace",
      "default",
      "-address",
      ADDRESS,
      "-id",
      "c1",
      "start",
      "more",
    ],
  ]) {
    it(`takes the flags ${args.join(" ")}`, async () => {
      assert.deepEqual(await launch(args), { code: 0, stdout: `unix://${doorOf(ADDRESS)}`, stderr: "" });
    });
  }
});

describe("start with a daemon that does not serve this caller yet", asRoot, () => {
  for (const [what, address, namespace] of [
    ["containerd", "/other/containerd.sock", "default"],
    ["namespace", ADDRESS, "k8s.io"],
  ] as const) {
    it(`has a door opened for another ${what}`, async () => {
      await start();
      const result = await launch(["-namespace", namespace, "-address", address, "-id", "c1", "start"]);
      assert.deepEqual(result, { code: 0, stdout: `unix://${doorOf(address, namespace)}`, stderr: "" });
      assert.deepEqual(
        (await calls()).map((c) => [c.command, c.args.at(-1)]),
        [
          ["node", `default@${ADDRESS}`],
          ["open-door", `${namespace}@${address}`],
        ],
      );
      assert.equal(await connects(doorOf(address, namespace)), true);
    });
  }
});

describe("other actions", () => {
  const remove = ["-namespace", "n s", "-address", ADDRESS, "-id", "c1", "-bundle", "/b", "delete"];

  it("delete boots the command with the flags where something is left", async () => {
    await mkdir(join(runDir, "tasks", taskKey(ADDRESS, "n s", "c1")), { recursive: true });
    assert.deepEqual(await launch(remove), { code: 0, stdout: "deleted", stderr: "" });
    assert.deepEqual((await calls())[0]?.args, remove.slice(0, -1));
  });

  it("delete answers by itself where nothing is left", async () => {
    const { code, stdout, stderr } = await launch(remove, {}, "latin1");
    const { pid, exitStatus, exitedAt } = DeleteResponse.decode(Buffer.from(stdout, "latin1"));
    assert.deepEqual([code, stderr, pid, exitStatus, await calls()], [0, "", 0, 137, []]);
    assert.ok(Math.abs(Number(exitedAt?.seconds) - Date.now() / 1_000) < 5);
  });

  it("-info prints a RuntimeInfo", async () => {
    const { stdout } = await launch(["-info"], {}, "latin1");
    const info = RuntimeInfo.decode(Buffer.from(stdout, "latin1"));
    assert.deepEqual([info.name, info.version?.version], ["io.containerd.kata-remote.v2", VERSION]);
    assert.equal(
      info.features?.typeUrl,
      "types.containerd.io/opencontainers/runtime-spec/1/features/Features",
      "the name under which containerd registers the document",
    );
    const features = JSON.parse(Buffer.from(info.features.value).toString());
    assert.ok(features.mountOptions.includes("rro"));
    assert.ok(!features.linux.namespaces.includes("user"), "user namespaces are refused at Create");
  });

  for (const flag of ["-v", "--version", "-v=true"]) {
    it(`${flag} prints the version`, async () => {
      assert.match((await launch([flag])).stdout, new RegExp(`${VERSION.replaceAll(".", "\\.")}\n$`));
    });
  }

  for (const [args, message] of [
    [["-what", "start"], /unknown flag -what/],
    [["-id"], /flag -id needs a value/],
    [["-debug=maybe", "start"], /flag -debug is "maybe"/],
    [["-id", "x", "restart"], /action "restart" is not known/],
    [["-address", "/a", "start"], /flag -id is missing/],
  ] as const) {
    it(`refuses ${args.join(" ")}`, async () => {
      const { code, stdout, stderr } = await launch(args);
      assert.deepEqual([code, stdout], [1, ""]);
      assert.match(stderr, message);
    });
  }
});

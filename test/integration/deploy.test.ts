import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parse as parseToml } from "smol-toml";
import { parse as parseYaml } from "yaml";
import { buildImage } from "../../deploy/ociimages/images.ts";
import { background } from "../../src/base/call.ts";
import { repositoryRoot } from "../lint/imports.ts";

const ROOT = repositoryRoot(import.meta.dirname);
const HANDLER = "kata-remote";

describe("deploy/", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "kr-deploy-"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it("has units that systemd accepts without a word", () => {
    for (const name of readdirSync(join(ROOT, "deploy/systemd"))) {
      // The command is not installed here: any executable stands for it.
      const text = readFileSync(join(ROOT, "deploy/systemd", name), "utf8").replaceAll(
        "/usr/bin/kata-remote",
        "/bin/true",
      );
      // A template is verified as one of its instances.
      const unit = join(folder, name.replace("@.", "@1a2b3c4d."));
      writeFileSync(unit, text);
      let verify: string;
      try {
        verify = execFileSync("systemd-analyze", ["verify", "--man=no", unit], { encoding: "utf8", stdio: "pipe" });
      } catch (e) {
        const { code, stderr } = e as { code?: string; stderr?: string };
        assert.equal(code, "ENOENT", stderr); // a machine without systemd has nothing to ask
        verify = "";
      }
      assert.equal(verify, "");
      assert.match(text, /^ExecStart=\/bin\/true (node|adaptor|relay \/run\/kata-remote\/r\/%i)$/m);
    }
  });

  it("has a containerd 1.x configuration that containerd reads, with the handler and runc in it", () => {
    const version = execFileSync("containerd", ["--version"], { encoding: "utf8" });
    const file = / v?2\./.test(version) ? "config-v3.toml" : "config-v2.toml";
    const dumped = execFileSync("containerd", ["--config", join(ROOT, "deploy/containerd", file), "config", "dump"], {
      encoding: "utf8",
    });
    const runtimes = findTable(parseToml(dumped), "runtimes");
    assert.deepEqual(Object.keys(runtimes ?? {}).sort(), [HANDLER, "runc"]);
    assert.match(dumped, /localhost\/kata-remote\/pause:1/);
  });

  it("says the same in both containerd configurations", () => {
    const [v2, v3] = ["config-v2.toml", "config-v3.toml"].map((file) => {
      const config = parseToml(readFileSync(join(ROOT, "deploy/containerd", file), "utf8"));
      const { sandboxer: _, ...handler } = findTable(findTable(config, "runtimes"), HANDLER) ?? {};
      return handler;
    });
    assert.deepEqual(v3, v2);
    assert.equal(v2?.runtime_type, "io.containerd.kata-remote.v2");
  });

  it("has a RuntimeClass for that handler", () => {
    const text = readFileSync(join(ROOT, "deploy/kubernetes/runtimeclass.yaml"), "utf8");
    const object = parseYaml(text) as { kind: string; handler: string; metadata: { name: string } };
    assert.deepEqual([object.kind, object.handler, object.metadata.name], ["RuntimeClass", HANDLER, HANDLER]);
  });

  it("makes the same image from the same packages, byte for byte", async () => {
    const digests = [];
    for (const cache of ["one", "two"]) {
      mkdirSync(join(folder, cache));
      const { path, cached } = await buildImage("busybox", join(folder, cache), background());
      assert.equal(cached, false);
      digests.push(execFileSync("sha256sum", [path], { encoding: "utf8" }).split(" ")[0]);
    }
    assert.equal(digests[0], digests[1]);
    assert.equal((await buildImage("busybox", join(folder, "one"), background())).cached, true);
    await assert.rejects(buildImage("nothing", folder, background()), /no recipe for image "nothing".*busybox/);
  });

  it("names only what is missing", () => {
    const list = (path: string) =>
      execFileSync(
        "sh",
        [
          "-c",
          `. "$1/deploy/setup.sh"; PATH=${path}; printf '%s\\n' "sh dash" "no-such-command some-package" | missing_packages`,
          "sh",
          ROOT,
        ],
        {
          encoding: "utf8",
          env: { ...process.env, ROOT },
        },
      );
    assert.equal(list("$PATH"), "some-package\n");
  });
});

describe("the built prefix", () => {
  let prefix: string;
  before(() => {
    prefix = mkdtempSync(join(tmpdir(), "kr-dist-"));
    execFileSync(process.execPath, [join(ROOT, "deploy/build.ts"), "--with-node", "--out", prefix], { stdio: "pipe" });
  });
  after(() => rmSync(prefix, { recursive: true, force: true }));

  it("can be moved away, and runs on its own Node whatever Node the host has", () => {
    const env = { PATH: "/usr/bin:/bin" };
    const version = execFileSync(join(prefix, "bin/kata-remote"), ["--version"], { encoding: "utf8", env });
    const { version: expected } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
    assert.equal(version.trim(), expected);
  });

  it("runs through a symbolic link", () => {
    const link = join(prefix, "link");
    symlinkSync(join(prefix, "bin/kata-remote"), link);
    assert.match(execFileSync(link, ["--help"], { encoding: "utf8" }), /image/);
  });

  it("has the launcher that containerd looks for", () => {
    const launcher = join(prefix, "bin/containerd-shim-kata-remote-v2");
    assert.match(execFileSync(launcher, ["-v"], { encoding: "utf8" }), /kata-remote/);
  });

  it("has a guest bundle that parses, most of it in chunks that a boot does not read", () => {
    const guest = join(prefix, "lib/kata-remote/guest");
    execFileSync(process.execPath, ["--check", join(guest, "guest.mjs")]);
    const read = new Map<string, string>();
    const visit = (path: string): void => {
      if (read.has(path)) return;
      read.set(path, readFileSync(path, "utf8"));
      for (const [, chunk = ""] of (read.get(path) ?? "").matchAll(/(?:from|import) *"(\.[^"]+)"/g))
        visit(join(path, "..", chunk));
    };
    visit(join(guest, "guest.mjs"));
    const bytes = [...read.values()].reduce((sum, text) => sum + text.length, 0);
    assert.ok(bytes < 450_000, `${bytes} bytes are read by every guest: ${[...read.keys()].join(" ")}`);
  });

  it("keeps what a provider needs in chunks of its own", () => {
    const entry = readFileSync(join(prefix, "lib/kata-remote/kata-remote.mjs"), "utf8");
    assert.ok(entry.length < 300_000, `${entry.length} bytes are read for every command`);
  });
});

/** The first table of this name, anywhere below. */
function findTable(value: unknown, name: string): Record<string, unknown> | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  for (const [key, child] of Object.entries(value)) {
    if (key === name && typeof child === "object" && child !== null) return child as Record<string, unknown>;
    const found = findTable(child, name);
    if (found !== undefined) return found;
  }
  return undefined;
}

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Options } from "../../gen/runtimeoptions/v1/options.ts";
import { readRuntimeOptions } from "./runtime-options.ts";

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "options-"));
});
after(() => rm(dir, { recursive: true, force: true }));

const any = (typeUrl: string, options: Partial<Options>) => ({
  typeUrl,
  value: Buffer.from(Options.encode(Options.fromPartial(options)).finish()),
});

async function file(text: string) {
  const configPath = join(dir, "runtime.toml");
  await writeFile(configPath, text);
  return any("runtimeoptions.v1.Options", { configPath });
}

describe("runtime options", () => {
  it("that are absent, empty or runc's change nothing", async () => {
    assert.deepEqual(await readRuntimeOptions(undefined), {});
    assert.deepEqual(await readRuntimeOptions(any("runtimeoptions.v1.Options", {})), {});
    assert.deepEqual(
      await readRuntimeOptions({ typeUrl: "containerd.runc.v1.Options", value: Buffer.from([1, 2, 3]) }),
      {},
    );
  });

  it("say where root file systems come from", async () => {
    const options = await file(
      "experimental_force_guest_pull = false\nconfidential_guest = true\nallow_node_rootfs = true\n",
    );
    assert.deepEqual(await readRuntimeOptions(options), {
      guestPull: false,
      confidential: true,
      allowNodeRootfs: true,
    });
  });

  it("name a file with defaults for the runtime's pods", async () => {
    const options = await file(
      'hypervisor = "qemu"\nmachine_type = "big"\nimage = "i"\ndefault_vcpus = 1.5\ndefault_memory = 512\ncreate_container_timeout = 9\n',
    );
    const expected = {
      hypervisor: "qemu",
      instanceType: "big",
      image: "i",
      vcpus: 1.5,
      memoryMiB: 512,
      createContainerTimeoutMs: 9_000,
    };
    assert.deepEqual(await readRuntimeOptions(options), expected);
    assert.deepEqual(
      await readRuntimeOptions({ ...options, typeUrl: "type.googleapis.com/cri.runtimeoptions.v1.Options" }),
      expected,
    );
  });

  it("may hold the file's content", async () => {
    const options = any("runtimeoptions.v1.Options", { configBody: Buffer.from('hypervisor = "remote"') });
    assert.deepEqual(await readRuntimeOptions(options), { hypervisor: "remote" });
  });

  for (const [what, text, message] of [
    ["an unknown key", "kernel = 1", /runtime\.toml: .*unknown key "kernel"/],
    ["a wrong value", 'default_memory = "1Gi"', /runtime\.toml: default_memory: must be integer/],
    ["no TOML", "= 3", /runtime\.toml is not TOML \(line 1\)/],
  ] as const) {
    it(`with ${what} are refused, naming file and key`, async () => {
      await assert.rejects(readRuntimeOptions(await file(text)), { code: "invalid_argument", message });
    });
  }

  it("with a file that is not there are refused by its name", async () => {
    await assert.rejects(readRuntimeOptions(any("runtimeoptions.v1.Options", { configPath: "/none.toml" })), {
      message: /ConfigPath = "\/none\.toml" cannot be read/,
    });
  });

  it("of an unknown type are refused by its name", async () => {
    await assert.rejects(readRuntimeOptions(any("io.x.Options", {})), {
      code: "invalid_argument",
      message: /type "io\.x\.Options"/,
    });
  });

  it("that cannot be decoded are refused", async () => {
    await assert.rejects(readRuntimeOptions({ typeUrl: "runtimeoptions.v1.Options", value: Buffer.from([0xff]) }), {
      message: /cannot be decoded/,
    });
  });
});

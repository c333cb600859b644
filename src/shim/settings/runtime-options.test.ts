import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Options } from "../../gen/runtimeoptions/v1/options.ts";
import { RuntimeOptions } from "./runtime-options.ts";

let dir: string;
let warnings: string[] = [];
const options = new RuntimeOptions({ log: { warn: (...args: unknown[]) => void warnings.push(String(args[1])) } });
const readRuntimeOptions = (any: Parameters<typeof options.read>[0]) => options.read(any);

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

  it("read Kata's configuration, and name what in it means nothing here, once", async () => {
    const kata = `
[hypervisor.remote]
remote_hypervisor_socket = "/run/peerpod/hypervisor.sock"
remote_hypervisor_timeout = 700
enable_annotations = ["default_vcpus"]
default_vcpus = 0
default_memory = 2048
[agent.kata]
dial_timeout = 30
[runtime]
disable_guest_seccomp = true
create_container_timeout = 60
experimental_force_guest_pull = true
[factory]
enable_template = false
`;
    warnings = [];
    const any = await file(kata);
    const { gate, ...read } = await readRuntimeOptions(any);
    await readRuntimeOptions(any);
    assert.deepEqual(read, {
      ...{ hypervisor: "remote", memoryMiB: 2048, guestPull: true, seccomp: false },
      ...{ createContainerTimeoutMs: 60_000, startVmTimeoutMs: 700_000 },
    });
    assert.deepEqual([gate?.allows("default_vcpus"), gate?.allows("image")], [true, false]);
    assert.match(gate?.where ?? "", /^enable_annotations in .*runtime\.toml$/);
    assert.equal(warnings.length, 1);
    assert.match(
      warnings[0] ?? "",
      /mean nothing to kata-remote: hypervisor\.remote\.remote_hypervisor_socket, agent\.kata\.dial_timeout, factory\.enable_template$/,
    );
  });

  it("of Kata for a local hypervisor leave QEMU's machine and Kata's image aside", async () => {
    const text = '[hypervisor.qemu]\nmachine_type = "q35"\nimage = "/usr/share/kata.img"\ndefault_vcpus = 2\n';
    assert.deepEqual(await readRuntimeOptions(await file(text)), { hypervisor: "qemu", vcpus: 2 });
    await assert.rejects(readRuntimeOptions(await file("[hypervisor.acrn]\n")), /hypervisor "acrn" is not known here/);
    await assert.rejects(
      readRuntimeOptions(await file('[hypervisor.remote]\ndefault_memory = "1Gi"\n')),
      /runtime\.toml: default_memory: must be integer/,
    );
  });

  it("are changed by the files of config.d beside the file that a link leads to", async () => {
    const real = join(dir, "real");
    await mkdir(join(real, "config.d"), { recursive: true });
    await writeFile(join(real, "c.toml"), "[hypervisor.remote]\ndefault_vcpus = 1\ndefault_memory = 100\n");
    await writeFile(join(real, "config.d", "50-mine.toml"), "[hypervisor.remote]\ndefault_memory = 300\n");
    await writeFile(join(real, "config.d", "20-less.toml"), "[hypervisor.remote]\ndefault_memory = 200\n");
    const configPath = join(dir, "link.toml");
    await symlink(join(real, "c.toml"), configPath);
    const read = await readRuntimeOptions(any("runtimeoptions.v1.Options", { configPath }));
    assert.deepEqual(read, { hypervisor: "remote", vcpus: 1, memoryMiB: 300 });
  });
});

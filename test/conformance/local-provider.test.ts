import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadProvider } from "../../providers/registry.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import type { Provider } from "../../src/provider/index.ts";
import { tinyKernel } from "../fakes/tiny-kernel.ts";
import { type ProviderUnderTest, providerConformance } from "./provider.ts";

const missing = ["qemu-system-x86_64", "qemu-img", "genisoimage", "setpriv"].filter(
  (c) => spawnSync(c, ["--version"]).error !== undefined,
);
const noQemu = missing.length > 0 ? `not installed: ${missing.join(", ")}` : false;

/** Provider local in a directory of its own, with the given image or one that only says hello. */
async function localUnderTest(imageDir?: string): Promise<ProviderUnderTest> {
  const dir = await mkdtemp(join(tmpdir(), "local-"));
  const image = imageDir ?? (await tinyImage(join(dir, "image")));
  const plugin = await loadProvider("local");
  const config = { stateDir: join(dir, "vms"), imageDir: image, acceleration: "tcg", network: "user", cacheDir: dir };
  const open = (): Promise<Provider> =>
    plugin.create(parseConfig(plugin.configSchema, config, "test"), { log: silentLogger(), now: () => new Date() });
  const provider = await open();
  return {
    provider,
    reopen: open,
    async close() {
      await provider.close();
      await rm(dir, { recursive: true });
    },
  };
}

async function tinyImage(dir: string): Promise<string> {
  await mkdir(dir);
  await writeFile(join(dir, "vmlinuz"), tinyKernel("Linux version tiny\n", "halt"));
  await writeFile(join(dir, "initrd.img"), "none");
  await writeFile(join(dir, "podvm.raw"), "");
  await truncate(join(dir, "podvm.raw"), 1 << 20);
  const files = { kernel: { file: "vmlinuz" }, initrd: { file: "initrd.img" }, disk: { file: "podvm.raw" } };
  await writeFile(join(dir, "manifest.json"), JSON.stringify({ ...files, kernelParams: ["quiet"] }));
  return dir;
}

providerConformance("local, with a kernel of 100 bytes", () => localUnderTest(), { skip: noQemu });

const built = process.env.KATA_REMOTE_IMAGE_DIR ?? "/var/lib/kata-remote/image";
const noImage = existsSync(join(built, "manifest.json"))
  ? false
  : `no pod VM image in ${built}: kata-remote image build makes one (KATA_REMOTE_IMAGE_DIR names another place)`;
providerConformance("local, with the pod VM image", () => localUnderTest(built), { skip: noQemu || noImage });

import { statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Call } from "../../src/base/call.ts";
import { exec } from "../../src/base/exec.ts";
import { Fault } from "../../src/base/fault.ts";
import type { Finding } from "../../src/provider/index.ts";
import { type BootImage, loadBootImage, type QemuVmm, type VmNetwork } from "../../src/vmm/index.ts";
import type { LocalConfig } from "./config.ts";

const GIB = 1024 ** 3;
const LOW_DISK_GIB = 5;
const MIN_DISK_GIB = 0.25;

/** What provider local needs on this host. The only thing that runs is the KVM probe, once per boot. */
export async function verifyHost(
  config: LocalConfig,
  vmm: QemuVmm,
  network: VmNetwork,
  call: Call,
): Promise<readonly Finding[]> {
  const programs = await Promise.all([
    program([config.qemu], "qemu-system-x86", call),
    program(["qemu-img"], "qemu-utils", call),
    program(["genisoimage", "xorriso", "mkisofs"], "genisoimage", call),
    program(["setpriv"], "util-linux", call),
  ]);
  const image = await loadBootImage(config.imageDir).catch((e: unknown) => Fault.from(e));
  return [
    ...programs,
    imageFinding(config, image),
    ...(image instanceof Fault ? [] : [await accelerationFinding(config, image, vmm, call)]),
    await diskFinding(config),
    await networkFinding(config, network),
  ];
}

async function program(names: readonly string[], debianPackage: string, call: Call): Promise<Finding> {
  for (const name of names) {
    try {
      const { stdout, stderr } = await exec(name, ["--version"], call);
      return { subject: name, state: "ok", detail: (stdout || stderr).split("\n")[0] ?? "" };
    } catch (e) {
      const fault = Fault.from(e);
      if (fault.code !== "unavailable") {
        return {
          subject: name,
          state: "error",
          detail: fault.fullMessage,
          remedy: `apt-get install --reinstall ${debianPackage}`,
        };
      }
    }
  }
  return {
    subject: names[0] ?? "",
    state: "error",
    detail: `${names.join(" or ")} is not installed`,
    remedy: `apt-get install ${debianPackage}`,
  };
}

function imageFinding(config: LocalConfig, image: BootImage | Fault): Finding {
  const subject = "pod VM image";
  if (!(image instanceof Fault)) return { subject, state: "ok", detail: image.imagePath };
  return {
    subject,
    state: "error",
    detail: image.fullMessage,
    remedy: `kata-remote image build --out ${config.imageDir}`,
  };
}

async function accelerationFinding(config: LocalConfig, image: BootImage, vmm: QemuVmm, call: Call): Promise<Finding> {
  const subject = "acceleration";
  if (config.acceleration === "tcg") return { subject, state: "ok", detail: "emulation (tcg), as configured" };
  const verdict = await vmm.kvm(image, call);
  if (verdict.works) return { subject, state: "ok", detail: `KVM: ${verdict.detail}` };
  if (config.acceleration === "kvm") {
    return {
      subject,
      state: "error",
      detail: verdict.detail,
      remedy: 'set providers.local.acceleration to "auto" or "tcg"',
    };
  }
  return {
    subject,
    state: "warning",
    detail: `VMs are emulated, which is several times slower: ${verdict.detail}`,
    remedy: "use a host with working (nested) virtualization",
  };
}

async function networkFinding(config: LocalConfig, network: VmNetwork): Promise<Finding> {
  const subject = "VM network";
  const noPods = "VMs use QEMU's user-mode network, which carries no pod network";
  if (config.network === "user")
    return { subject, state: "warning", detail: noPods, remedy: 'set providers.local.network to "auto"' };
  const { works, detail } = await network.verdict();
  if (works) return { subject, state: "ok", detail: `tap devices on bridge ${config.bridge}, ${config.subnet}` };
  return config.network === "tap"
    ? { subject, state: "error", detail, remedy: 'load the kernel modules bridge and tun, or set network to "user"' }
    : { subject, state: "warning", detail: `${noPods}: ${detail}`, remedy: "load the kernel modules bridge and tun" };
}

async function diskFinding(config: LocalConfig): Promise<Finding> {
  const freeGiB = (await freeBytes(config.stateDir)) / GIB;
  const detail = `${freeGiB.toFixed(1)} GiB free in ${config.stateDir}`;
  if (freeGiB >= LOW_DISK_GIB) return { subject: "disk space", state: "ok", detail };
  return {
    subject: "disk space",
    state: "warning",
    detail,
    remedy: "free some, or set providers.local.stateDir to a larger disk",
  };
}

/**
 * A VM that finds the disk full right after its start would fail in ways that name anything but the disk.
 * @throws Fault resource_exhausted
 */
export async function checkDisk(stateDir: string): Promise<void> {
  const free = await freeBytes(stateDir);
  if (free >= MIN_DISK_GIB * GIB) return;
  const message = `${stateDir} has ${(free / GIB).toFixed(2)} GiB free, a VM needs at least ${MIN_DISK_GIB}: free some, or set providers.local.stateDir`;
  throw new Fault("resource_exhausted", message, { provider: "local" });
}

/** Of the file system that a directory is in, or will be. */
async function freeBytes(dir: string): Promise<number> {
  for (let path = resolve(dir); ; path = dirname(path)) {
    try {
      const { bavail, bsize } = await statfs(path);
      return bavail * bsize;
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== "ENOENT") throw e;
    }
  }
}

import { join } from "node:path";
import type { NetworkSettings } from "../../vmm/settings/index.ts";
import type { Hypervisor } from "./hypervisor.ts";
import type { QemuHypervisorDeps } from "./qemu.ts";
import type { RemoteOptions } from "./remote.ts";

export type { RemoteOptions };

/** Opens the backend whose VMs the adaptor makes. gRPC is loaded only now: it is most of a small daemon's memory. */
export async function openRemote(options: RemoteOptions): Promise<Hypervisor> {
  const { RemoteHypervisor } = await import("./remote.ts");
  return RemoteHypervisor.open(options);
}

export interface QemuOptions
  extends Omit<QemuHypervisorDeps, "vmm" | "network" | "ca" | "bootImage" | "readConsole">,
    Readonly<NetworkSettings> {
  /** What `kata-remote image build` made. */
  readonly imageDir: string;
  /** The verdict of the KVM probe is kept here: it holds until the next boot. */
  readonly runDir: string;
}

/** Opens the backend whose VMs are this process's children. */
export async function openQemu(options: QemuOptions): Promise<Hypervisor> {
  const { QemuHypervisor } = await import("./qemu.ts");
  const { loadBootImage, QemuVmm, readConsole, VmNetwork } = await import("../../vmm/index.ts");
  const { CertificateAuthority } = await import("../../identity/index.ts");
  const vmm = new QemuVmm({ log: options.log, qemuPath: options.qemuPath, cacheDir: options.runDir });
  const network = new VmNetwork({ ...options, owner: options.stateDir });
  const ca = await CertificateAuthority.open(join(options.stateDir, "ca"));
  return new QemuHypervisor({
    ...options,
    vmm,
    network,
    ca,
    readConsole,
    bootImage: () => loadBootImage(options.imageDir),
  });
}

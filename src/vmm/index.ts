export { type BootImage, loadBootImage } from "./boot-image.ts";
export {
  type KvmVerdict,
  type Launch,
  launchProcess,
  probeKvm,
  type QemuDeps,
  QemuVmm,
  Qmp,
  readConsole,
} from "./qemu/index.ts";
export { type TapVerdict, VmNetwork } from "./vm-network.ts";
export type { TapNetwork, Vmm, VmmHandle, VmmSpec } from "./vmm.ts";

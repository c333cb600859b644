export { readConsole } from "./console.ts";
export { type KvmVerdict, probeKvm } from "./kvm-probe.ts";
export { type Launch, launch as launchProcess } from "./launch.ts";
export { type QemuDeps, QemuVmm } from "./qemu-vmm.ts";
export { Qmp } from "./qmp.ts";

export { readConsole } from "./console.ts";
export { type KvmVerdict, probeKvm } from "./kvm-probe.ts";
export { type QemuDeps, QemuVmm } from "./qemu-vmm.ts";

import type { VmmSpec } from "../vmm.ts";
import type { VmFiles } from "./layout.ts";

/** Host memory for translated code, MiB. QEMU's own default is 1 GiB, which a 512 MiB guest cannot use. */
const TCG_CACHE_MIB = 256;

/**
 * QEMU's arguments for a VM. The host's end of the port forward is 0: the kernel chooses a free port while QEMU binds,
 * so that two VMs starting at once cannot be given the same one. QMP tells it afterwards.
 * Source: qemu(1); slirp's hostfwd with port 0 was seen working in 7.2.
 */
export function qemuArguments(spec: VmmSpec, files: VmFiles, acceleration: "kvm" | "tcg"): string[] {
  const outbound = spec.outbound === true ? "off" : "on";
  return [
    ...["-name", `guest=${option(spec.name)}`],
    ...["-machine", "q35,hpet=off,smbus=off,sata=off,usb=off"],
    ...["-accel", acceleration === "kvm" ? "kvm" : `tcg,thread=multi,tb-size=${TCG_CACHE_MIB}`],
    ...["-cpu", "max", "-smp", String(spec.vcpus), "-m", `${spec.memoryMiB}M`],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...["-kernel", spec.kernelPath, "-initrd", spec.initrdPath, "-append", kernelCommandLine(spec)],
    // Nothing of the disk is worth a flush: a pod VM never comes back after its host went down.
    ...["-drive", `if=none,id=root,file=${option(files.overlay)},format=qcow2,cache=unsafe,discard=unmap`],
    // A full host disk is an I/O error inside the guest; QEMU's default would freeze the VM without a word.
    ...["-device", "virtio-blk-pci,drive=root,werror=report,rerror=report"],
    ...["-drive", `if=none,id=seed,file=${option(files.seed)},format=raw,readonly=on`],
    ...["-device", "virtio-blk-pci,drive=seed"],
    ...["-netdev", `user,id=n0,restrict=${outbound},hostfwd=tcp:127.0.0.1:0-:${spec.guestPort}`],
    ...["-device", "virtio-net-pci,netdev=n0,romfile="],
    ...["-device", "virtio-rng-pci"],
    ...["-chardev", `file,id=console,path=${option(files.console)},append=on`, "-serial", "chardev:console"],
    ...["-qmp", `unix:${option(files.qmpSocket)},server=on,wait=off`],
    ...["-pidfile", files.pid],
  ];
}

/** The console must be the serial port, and a panicked guest must end instead of hanging: the driver relies on both. */
function kernelCommandLine(spec: VmmSpec): string {
  const params = [...spec.kernelParams];
  if (!params.some((p) => p.startsWith("console="))) params.push("console=ttyS0");
  if (!params.some((p) => p.startsWith("panic="))) params.push("panic=-1");
  return params.join(" ");
}

/** A comma ends a value in QEMU's option lists; doubled it stands for itself. */
function option(value: string): string {
  return value.replaceAll(",", ",,");
}

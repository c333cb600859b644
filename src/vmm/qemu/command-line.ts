import { createHash } from "node:crypto";
import { BRIDGE_MTU, macOf } from "../host-bridge.ts";
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
    ...networkArguments(spec),
    ...["-device", "virtio-rng-pci"],
    ...["-chardev", `file,id=console,path=${option(files.console)},append=on`, "-serial", "chardev:console"],
    ...["-qmp", `unix:${option(files.qmpSocket)},server=on,wait=off`],
    ...["-pidfile", files.pid],
  ];
}

/**
 * The VM's tap device, at most 15 characters. QEMU makes it and the kernel removes it with QEMU, however that ends.
 * @param dir the VM's directory
 */
export function tapName(dir: string): string {
  return `krt${createHash("sha256").update(dir).digest("hex").slice(0, 12)}`;
}

function networkArguments(spec: VmmSpec): string[] {
  if (spec.tap === undefined) {
    const restrict = spec.outbound === true ? "off" : "on";
    const user = `user,id=n0,restrict=${restrict},hostfwd=tcp:127.0.0.1:0-:${spec.guestPort}`;
    return ["-netdev", user, "-device", "virtio-net-pci,netdev=n0,romfile="];
  }
  const device = `virtio-net-pci,netdev=n0,romfile=,mac=${macOf(spec.tap.address)},host_mtu=${BRIDGE_MTU}`;
  return ["-netdev", `tap,id=n0,ifname=${tapName(spec.dir)},script=no,downscript=no`, "-device", device];
}

/** The console must be the serial port, and a panicked guest must end instead of hanging: the driver relies on both. */
function kernelCommandLine(spec: VmmSpec): string {
  const params = [...spec.kernelParams];
  if (!params.some((p) => p.startsWith("console="))) params.push("console=ttyS0");
  if (!params.some((p) => p.startsWith("panic="))) params.push("panic=-1");
  if (spec.tap !== undefined) {
    const { address, prefixLength, gateway } = spec.tap;
    // Read by the image's network script; nobody answers DHCP there.
    params.push(`kata-remote.ip=${address}/${prefixLength}`);
    if (gateway !== undefined) params.push(`kata-remote.gateway=${gateway}`);
  }
  return params.join(" ");
}

/** A comma ends a value in QEMU's option lists; doubled it stands for itself. */
function option(value: string): string {
  return value.replaceAll(",", ",,");
}

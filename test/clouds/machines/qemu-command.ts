import { join } from "node:path";
import { macOf } from "./addresses.ts";
import type { DiskSpec, MachineSpec, Platform } from "./types.ts";

/** Debian's ovmf package. The 4 MiB build, as clouds have it: none of them has the 2 MiB one. */
export const FIRMWARE = { code: "/usr/share/OVMF/OVMF_CODE_4M.fd", variables: "/usr/share/OVMF/OVMF_VARS_4M.fd" };

/** Host memory for translated code, MiB. QEMU's own default, 1 GiB, is more than most guests have. */
const TCG_CACHE_MIB = 256;
/** Places for disks that come later. */
export const SPARE_PORTS: readonly string[] = ["spare0", "spare1", "spare2", "spare3"];

export interface MachineFiles {
  readonly console: string;
  readonly qmpSocket: string;
  readonly log: string;
  readonly variables: string;
}

export function filesOf(dir: string): MachineFiles {
  const at = (name: string): string => join(dir, name);
  return { console: at("console.log"), qmpSocket: at("qmp"), log: at("qemu.log"), variables: at("uefi-variables.fd") };
}

export function overlayPath(dir: string, disk: DiskSpec): string {
  return disk.kept ?? join(dir, `disk-${disk.id}.qcow2`);
}

/** QEMU's arguments for a machine as its cloud has it. @param taps one per interface, in order */
export function machineArguments(
  spec: MachineSpec,
  place: {
    readonly dir: string;
    readonly disks: readonly DiskSpec[];
    readonly taps: readonly string[];
    readonly mtu: number;
    readonly acceleration: "kvm" | "tcg";
  },
): string[] {
  const files = filesOf(place.dir);
  return [
    ...["-name", `guest=${spec.id}`],
    ...["-machine", "q35,hpet=off,smbus=off,sata=off,usb=off"],
    ...["-accel", place.acceleration === "kvm" ? "kvm" : `tcg,thread=multi,tb-size=${TCG_CACHE_MIB}`],
    ...["-cpu", "max", "-smp", String(spec.vcpus), "-m", `${spec.memoryMiB}M`],
    ...["-nodefaults", "-no-user-config", "-display", "none"],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...["-drive", `if=pflash,unit=0,format=raw,readonly=on,file=${FIRMWARE.code}`],
    ...["-drive", `if=pflash,unit=1,format=raw,file=${files.variables}`],
    ...smbios(spec).flatMap((entry) => ["-smbios", entry]),
    ...(spec.platform === "azure" ? ["-device", "virtio-scsi-pci,id=scsi0"] : []),
    // Data disks are on a controller of their own.
    ...(place.disks.some((d) => d.lun !== undefined) ? ["-device", "virtio-scsi-pci,id=scsi1"] : []),
    ...SPARE_PORTS.flatMap((id, i) => ["-device", `pcie-root-port,id=${id},chassis=${i + 1}`]),
    ...place.disks.flatMap((disk, i) => [
      ...[
        "-drive",
        `if=none,id=${disk.id},file=${overlayPath(place.dir, disk)},format=qcow2,cache=unsafe,discard=unmap`,
      ],
      ...["-device", deviceOption(diskDevice(spec.platform, disk), i === 0 ? { bootindex: 0 } : {})],
    ]),
    ...spec.nics.flatMap((nic, i) => [
      ...["-netdev", `tap,id=net${i},ifname=${place.taps[i]},script=no,downscript=no`],
      "-device",
      `virtio-net-pci,netdev=net${i},romfile=,mac=${macOf(spec.platform, nic.address)},host_mtu=${place.mtu}`,
    ]),
    ...["-chardev", `file,id=console,path=${files.console},append=on`, "-serial", "chardev:console"],
    ...["-qmp", `unix:${files.qmpSocket},server=on,wait=off`],
  ];
}

/** The device in front of a disk: EC2 shows a volume's id without its dash as the serial number. */
export function diskDevice(platform: Platform, disk: DiskSpec, bus?: string): Readonly<Record<string, string>> {
  const common = { id: `dev-${disk.id}`, drive: disk.id, serial: disk.id.replace("-", "").slice(0, 20) };
  if (platform === "azure") {
    const place = disk.lun === undefined ? { bus: "scsi0.0" } : { bus: "scsi1.0", "scsi-id": "0", lun: `${disk.lun}` };
    return { driver: "scsi-hd", ...place, ...common };
  }
  return { driver: "nvme", ...(bus === undefined ? {} : { bus }), ...common };
}

function deviceOption(device: Readonly<Record<string, string>>, more: Readonly<Record<string, number>>): string {
  const { driver = "", ...rest } = device;
  return [driver, ...Object.entries({ ...rest, ...more }).map(([key, value]) => `${key}=${value}`)].join(",");
}

/**
 * What tells a guest where it is.
 * Sources: EC2 user guide, "Identify EC2 Linux instances" (system vendor, board and chassis asset tags); Azure's chassis
 * asset tag as cloud-init and WALinuxAgent look for it.
 */
function smbios({ platform, model, id }: MachineSpec): string[] {
  if (platform === "azure") {
    return [
      "type=0,vendor=Microsoft Corporation,version=Hyper-V UEFI Release v4.1",
      "type=1,manufacturer=Microsoft Corporation,product=Virtual Machine,version=Hyper-V UEFI Release v4.1",
      "type=2,manufacturer=Microsoft Corporation,product=Virtual Machine",
      "type=3,manufacturer=Microsoft Corporation,asset=7783-7084-3265-9085-8269-3286-77",
    ];
  }
  return [
    "type=0,vendor=Amazon EC2,version=1.0",
    `type=1,manufacturer=Amazon EC2,product=${model ?? "m6a.large"}`,
    `type=2,manufacturer=Amazon EC2,asset=${id}`,
    "type=3,manufacturer=Amazon EC2,asset=Amazon EC2",
  ];
}

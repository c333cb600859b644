import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, realpathSync, statSync } from "node:fs";
import { basename } from "node:path";

/** A disk of this machine, as the kernel shows it. */
export interface BlockDisk {
  /** "nvme1n1", "sdc": also below /dev. */
  readonly name: string;
  readonly bytes: number;
  /** "" where it says none. EC2 shows a volume's id without its dash. */
  readonly serial: string;
  /** At Azure: which of the VM's data disks it is. */
  readonly lun: number | undefined;
  /** Nothing may be written to it, or something of it is in use: partitions, a mapped device. */
  readonly taken: boolean;
}

const SECTOR = 512;
const PROBE = 1 << 20;
/** Source: Azure, "Identify NVMe devices in the guest": namespace 1 is the OS disk, data disks follow from 2 on. */
const AZURE_NVME = "MSFT NVMe Accelerator";
const AZURE_NVME_FIRST_DATA = 2;
const NO_DISKS = /^(loop|ram|zram|dm-|md|sr|fd|nbd)/;

/** All disks but the one that `/` is on. */
export function blockDisks(sys = "/sys", rootDev = statSync("/").dev): readonly BlockDisk[] {
  const root = diskOf(rootDev, sys);
  const rootHost = scsiAddress(`${sys}/block/${root}`)?.host;
  return readdirSync(`${sys}/block`)
    .filter((name) => !NO_DISKS.test(name) && name !== root)
    .map((name) => {
      const at = `${sys}/block/${name}`;
      return {
        ...{ name, bytes: Number(text(`${at}/size`) || 0) * SECTOR },
        serial: text(`${at}/device/serial`) || text(`${at}/serial`),
        lun: lunOf(at, rootHost),
        taken:
          text(`${at}/ro`) === "1" ||
          text(`${at}/removable`) === "1" ||
          entries(`${at}/holders`).length > 0 ||
          entries(at).some((entry) => existsSync(`${at}/${entry}/partition`)),
      };
    })
    .filter((disk) => disk.bytes > 0);
}

/** Whether the disk is a cloud's volume. @param index its place among those attached to the VM */
export function isVolume(disk: BlockDisk, volumeId: string, index: number): boolean {
  return disk.lun === undefined ? disk.serial === serialOf(volumeId) : disk.lun === index;
}

/** As a disk shows the volume's id; at most 20 characters fit. Source: EC2 user guide, "Amazon EBS and NVMe". */
function serialOf(volumeId: string): string {
  return volumeId.replace("-", "").slice(0, 20);
}

/** That nobody has ever written to it, as far as its first and last MiB tell: file systems, LVM, LUKS and RAID are there. */
export function isBlank(path: string, bytes: number): boolean {
  const fd = openSync(path, "r");
  try {
    const zero = Buffer.alloc(PROBE);
    return [0, Math.max(0, bytes - PROBE)].every((position) => {
      const found = Buffer.alloc(PROBE);
      const length = readSync(fd, found, 0, PROBE, position);
      return found.subarray(0, length).equals(zero.subarray(0, length));
    });
  } finally {
    closeSync(fd);
  }
}

/** Name of the disk that a device number is, or is a partition of; "" for what is no disk. */
function diskOf(dev: number, sys: string): string {
  // As glibc packs them: 12 bits of the major number, 20 of the minor.
  const link = `${sys}/dev/block/${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  if (!existsSync(link)) return "";
  const at = realpathSync(link);
  return basename(existsSync(`${at}/partition`) ? at.slice(0, at.lastIndexOf("/")) : at);
}

/** Data disks are on another SCSI host than the OS disk. Source: azure-vm-utils and WALinuxAgent, 66-azure-storage.rules. */
function lunOf(at: string, rootHost: number | undefined): number | undefined {
  if (text(`${at}/device/model`).startsWith(AZURE_NVME)) {
    return Number(text(`${at}/nsid`)) - AZURE_NVME_FIRST_DATA;
  }
  const scsi = scsiAddress(at);
  return scsi === undefined || rootHost === undefined || scsi.host === rootHost ? undefined : scsi.lun;
}

function scsiAddress(at: string): { readonly host: number; readonly lun: number } | undefined {
  if (!existsSync(`${at}/device`)) return undefined;
  const [, host, lun] = /^(\d+):\d+:\d+:(\d+)$/.exec(basename(realpathSync(`${at}/device`))) ?? [];
  return host === undefined ? undefined : { host: Number(host), lun: Number(lun) };
}

function entries(path: string): readonly string[] {
  return existsSync(path) ? readdirSync(path) : [];
}

function text(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8").trim() : "";
}

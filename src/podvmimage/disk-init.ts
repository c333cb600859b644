/** Programs of the first seconds of a disk that a cloud boots: its initrd's, which must find its way by itself. */

/** Modules of the initrd by the machine they are for. NVMe is built into the kernel. */
export const DISK_MODULES = {
  virtio: ["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod"],
  /** The bus comes first: it does not load anywhere else. */
  hyperv: ["hv_vmbus", "hv_storvsc", "sd_mod", "pci_hyperv"],
} as const;

/** Files of modules below /modules, in load order. */
export interface DiskModules {
  readonly virtio: readonly string[];
  readonly hyperv: readonly string[];
}

/**
 * Kernel parameters of a disk that a cloud boots. A volume on the network may take its time: NVMe requests are never
 * given up (AWS, "Amazon EBS and NVMe", I/O operation timeout).
 */
export function diskKernelParams(rootLabel: string): readonly string[] {
  return [
    "console=ttyS0,115200n8",
    "quiet",
    "panic=-1",
    "no_timer_check",
    "cryptomgr.notests",
    "nvme_core.io_timeout=4294967295",
    `root=PARTLABEL=${rootLabel}`,
  ];
}

/**
 * /init of such a disk: loads what the machine's disks need, mounts the partition that root= names, starts the network
 * beside everything else and makes Node PID 1. What fails here is said on the console, and the machine is switched off:
 * a panic would restart it for ever, and be paid for.
 */
export function diskInitScript(modules: DiskModules): string {
  const [vmbus = "", ...onVmbus] = modules.hyperv;
  return `#!/bin/busybox sh
set -e
b=/bin/busybox
step=start
end() {
  echo "kata-remote: initrd: $step failed, switching off" >/dev/console
  $b sleep 2
  $b poweroff -f
}
trap end EXIT
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
load() { for m in "$@"; do $b insmod /modules/$m; done; }
vendor=
[ ! -r /sys/class/dmi/id/sys_vendor ] || read -r vendor </sys/class/dmi/id/sys_vendor
step="loading drivers on a machine of $vendor"
case $vendor in Microsoft*) ! $b insmod /modules/${vmbus} || load ${onVmbus.join(" ")} ;; esac
for d in /sys/bus/pci/devices/*; do
  read -r id <$d/vendor
  [ $id != 0x1af4 ] || { load ${modules.virtio.join(" ")}; break; }
done
root=
read -r line </proc/cmdline
for p in $line; do case $p in root=*) root=\${p#root=} ;; esac; done
find_root() {
  case $root in PARTLABEL=*) ;; *) [ -b "$root" ]; return ;; esac
  for u in /sys/class/block/*/uevent; do
    device= label=
    while IFS== read -r key value; do
      case $key in DEVNAME) device=$value ;; PARTNAME) label=$value ;; esac
    done <$u
    if [ "$label" = "\${root#PARTLABEL=}" ]; then
      root=/dev/$device
      return
    fi
  done
  return 1
}
step="finding the root partition $root"
n=0
until find_root; do
  [ $n -lt 3000 ]
  $b usleep 20000
  n=$((n+1))
done
step="mounting $root"
# noinit_itable: what the kernel would zero in the background is zero, on a new volume as in the image
$b mount -t ext4 -o noatime,noinit_itable $root /root
$b mount --move /dev /root/dev
$b mount --move /proc /root/proc
$b mount --move /sys /root/sys
step="starting the guest"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# glibc would keep freed buffers in an arena per thread: 40 MB of the guest's memory after some output
export MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072
# Ends as soon as the script has closed its output, which it does when it is inside of the new root.
: $($b chroot /root /opt/kata-remote/network &)
exec $b switch_root -c /dev/console /root /usr/bin/node --expose-gc --max-semi-space-size=1 /opt/kata-remote/guest.mjs
`;
}

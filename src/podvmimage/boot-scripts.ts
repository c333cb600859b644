/** Programs of the guest's first two seconds, for busybox. Every process costs tens of milliseconds under emulation. */

/** Modules that the root disk needs, loaded from the initrd. */
export const INITRD_MODULES: readonly string[] = ["virtio_pci", "virtio_blk"];

/**
 * Kernel parameters that belong to the image. An emulated timer on a busy host fails the kernel's check of it now and
 * then ("IO-APIC + timer doesn't work", a panic 40 ms after power-on), so the check is left out; so are the tests of its
 * ciphers, which take 0.7 s of every emulated boot.
 */
export const KERNEL_PARAMS: readonly string[] = [
  "console=ttyS0",
  "quiet",
  "panic=-1",
  "no_timer_check",
  "cryptomgr.notests",
  "root=/dev/vda",
  "kata-remote.user-data=cidata",
];

/**
 * /init of the initrd: loads the disk's driver, mounts the root, starts the network beside everything else and makes
 * Node PID 1. Should a step fail, the kernel panics, and panic=-1 ends the VM.
 * @param moduleFiles in load order, below /modules
 */
export function initScript(moduleFiles: readonly string[]): string {
  return `#!/bin/busybox sh
set -e
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
for m in ${moduleFiles.join(" ")}; do $b insmod /modules/$m; done
root=/dev/vda
read -r line </proc/cmdline
for p in $line; do case $p in root=*) root=\${p#root=} ;; esac; done
n=0
until [ -b $root ] || [ $n -ge 200 ]; do $b usleep 10000; n=$((n+1)); done
# noinit_itable: the image is sparse, so what the kernel would zero in the background is zero
$b mount -t ext4 -o noatime,noinit_itable $root /root
$b mount --move /dev /root/dev
$b mount --move /proc /root/proc
$b mount -t sysfs sys /root/sys
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# glibc would keep freed buffers in an arena per thread: 40 MB of the guest's memory after some output
export MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072
# Ends as soon as the script has closed its output, which it does when it is inside of the new root.
: $($b chroot /root /opt/kata-remote/network &)
exec $b switch_root -c /dev/console /root /usr/bin/node --expose-gc --max-semi-space-size=1 /opt/kata-remote/guest.mjs
`;
}

/**
 * Brings the first network interface up: with the address that the kernel's parameters kata-remote.ip and
 * kata-remote.gateway name, else with a DHCP lease that is kept for as long as the VM lives. Where the machine is not
 * QEMU's own its network card's driver is found by what the card says it is. Azure's interface on the VM bus has the
 * address; the fast card that it may have as well comes later, as its slave.
 */
export const NETWORK_SCRIPT = `#!/bin/busybox sh
exec </dev/null >/dev/null 2>&1
b=/bin/busybox
$b modprobe virtio_net
($b modprobe overlay &) # a grandchild: udhcpc would never wait for it
cards() {
  for d in /sys/bus/pci/devices/*; do
    read -r class <$d/class
    case $class in 0x02*) ;; *) continue ;; esac
    read -r alias <$d/modalias
    [ -e $d/driver ] || $b modprobe "$alias"
  done
}
vendor=
[ ! -r /sys/class/dmi/id/sys_vendor ] || read -r vendor </sys/class/dmi/id/sys_vendor
case $vendor in
  QEMU | "") ;;
  Microsoft*)
    $b modprobe hv_netvsc
    (for n in 1 2 3 4 5; do $b sleep 2; cards; done &)
    ;;
  *) cards ;;
esac
ip= gateway=
read -r line </proc/cmdline
for p in $line; do
  case $p in
    kata-remote.ip=*) ip=\${p#*=} ;;
    kata-remote.gateway=*) gateway=\${p#*=} ;;
  esac
done
n=0
while [ $n -lt 500 ]; do
  for d in /sys/class/net/*; do
    [ -e $d/device ] && [ ! -e $d/master ] || continue
    i=\${d##*/}
    if [ -n "$ip" ]; then
      $b ip addr add $ip dev $i
      $b ip link set $i up
      [ -z "$gateway" ] || $b ip route replace default via $gateway dev $i
      # The pod network needs it, in a moment.
      exec $b modprobe -a vxlan macvlan
    fi
    $b ifconfig $i up
    exec $b udhcpc -f -i $i -s /opt/kata-remote/lease -t 5 -T 1 -A 1 -O mtu
  done
  $b usleep 20000
  n=$((n+1))
done
`;

/** What udhcpc calls when its lease changes. */
export const LEASE_SCRIPT = `#!/bin/busybox sh
b=/bin/busybox
case "$1" in
  bound | renew)
    $b ifconfig $interface $ip netmask $subnet \${mtu:+mtu $mtu}
    for r in $router; do
      [ "$1" = renew ] || $b ip route replace default via $r dev $interface
      break
    done
    {
      [ -z "$domain" ] || echo "search $domain"
      for s in $dns; do echo "nameserver $s"; done
    } >/etc/resolv.conf
    ;;
esac
`;

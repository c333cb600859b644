import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { Fault } from "../../base/fault.ts";
import type { GuestDisks } from "../../userdata/index.ts";
import { type BlockDisk, blockDisks, isBlank, isVolume } from "../system/block-disks.ts";
import type { Children } from "../system/children.ts";
import { encryptWithLostKey } from "../system/dm-crypt.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { mount } from "../system/mounts.ts";

/** A disk that the VM was made with is there when it boots, or soon after. */
const PATIENCE_MS = 10_000;
const NAME = "kata-scratch";
const CONTROL = "/dev/mapper/control";

export interface ScratchDeps {
  readonly disks: GuestDisks;
  /** What it is mounted on. */
  readonly target: string;
  readonly children: Pick<Children, "run">;
  readonly log: GuestLog;
}

/**
 * Gives the pod's files a disk of their own: the largest that has never been written to is encrypted with a key that
 * nobody keeps, formatted and mounted. Where none comes, the root disk goes on serving, and the log says so.
 * @throws Fault failed_precondition when there is one and it cannot be used: the root disk may be much too small
 */
export async function mountScratch({ disks, target, children, log }: ScratchDeps): Promise<void> {
  const disk = await awaitScratch(disks);
  if (disk === undefined) {
    log.warn("no empty disk came for the pod's files: they stay on the root disk", { waitedMs: PATIENCE_MS });
    return;
  }
  const began = performance.now();
  const run = async (program: string, ...args: string[]): Promise<void> => {
    const { exitCode, stderr } = await children.run(program, args);
    if (exitCode !== 0) throw unusable(disk, `${program} ended with: ${stderr.trim().slice(0, 300)}`);
  };
  if (!existsSync(CONTROL)) await run("/bin/busybox", "modprobe", "dm_mod");
  await run("/bin/busybox", "modprobe", "dm_crypt");
  let device: string;
  try {
    device = encryptWithLostKey(`/dev/${disk.name}`, disk.bytes, NAME);
  } catch (cause) {
    throw unusable(disk, "it cannot be encrypted", cause);
  }
  // No journal: it does not outlive its VM. Nothing is zeroed: what lies in unused inodes is never looked at.
  const options = ["-q", "-F", "-t", "ext4", "-m", "0", "-L", NAME, "-O", "^has_journal", "-E", "lazy_itable_init=1"];
  await run("/sbin/mke2fs", ...options, device);
  mount(device, target, "ext4", ["noatime", "noinit_itable"]);
  log.info("pod's files have a disk of their own", {
    ...{ disk: disk.name, serial: disk.serial, sizeMiB: Math.floor(disk.bytes / 2 ** 20), encrypted: true },
    durationMs: Math.round(performance.now() - began),
  });
}

async function awaitScratch(disks: GuestDisks): Promise<BlockDisk | undefined> {
  for (const end = performance.now() + PATIENCE_MS; ; await delay(100)) {
    const found = scratchOf(blockDisks(), disks, (disk) => isBlank(`/dev/${disk.name}`, disk.bytes));
    if (found !== undefined || performance.now() > end) return found;
  }
}

/** Which of the disks it is: the largest that is empty, and none that outlives the VM. */
export function scratchOf(
  all: readonly BlockDisk[],
  disks: GuestDisks,
  blank: (disk: BlockDisk) => boolean,
): BlockDisk | undefined {
  return all
    .filter((disk) => !disk.taken && !disks.volumes.some((id, index) => isVolume(disk, id, index)))
    .toSorted((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1))
    .find(blank);
}

function unusable(disk: BlockDisk, why: string, cause?: unknown): Fault {
  const message = `disk ${disk.name} cannot be used for the pod's files: ${why}`;
  return new Fault("failed_precondition", message, {}, cause === undefined ? {} : { cause });
}

import { setTimeout as delay } from "node:timers/promises";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Storage } from "../../gen/agent/agent.ts";
import { type BlockDisk, blockDisks, isBlank, isVolume } from "../system/block-disks.ts";
import type { Children } from "../system/children.ts";

/** They are attached before the guest is dialled; what the kernel needs to find one is less. */
const PATIENCE_MS = 60_000;
const POLL_MS = 100;
/** That this kernel mounts; the first is what an empty volume gets. */
const FORMAT = "ext4";
const FILE_SYSTEMS: ReadonlySet<string> = new Set([FORMAT, "ext3", "xfs"]);

export interface CloudVolumesDeps {
  /** Ids of the pod's volumes, in the order in which they were attached: user-data says them. */
  readonly volumes: () => readonly string[];
  readonly children: Pick<Children, "run">;
  readonly disks?: () => readonly BlockDisk[];
}

/** Volumes of the cloud that outlive this VM. They are found by what the cloud shows of them, and formatted once in their life. */
export class CloudVolumes {
  readonly #deps: CloudVolumesDeps;
  readonly #opening = new Map<string, Promise<string>>();
  readonly #open = new Map<string, string>();

  constructor(deps: CloudVolumesDeps) {
    this.#deps = deps;
  }

  /**
   * Waits for a storage's volume and makes a file system on one that nobody has ever written to. Several containers may ask.
   * @throws Fault not_found when it was not attached, invalid_argument for a file system that is not known here
   */
  async prepare({ source, fstype, options }: Storage, call: Call): Promise<void> {
    if (!FILE_SYSTEMS.has(fstype)) {
      const message = `volume ${source} is to have file system "${fstype}": ${[...FILE_SYSTEMS].join(", ")} are known here`;
      throw new Fault("invalid_argument", message);
    }
    const opening = this.#opening.get(source) ?? this.#prepare(source, fstype, options.includes("ro"), call);
    this.#opening.set(source, opening);
    try {
      this.#open.set(source, await opening);
    } catch (e) {
      this.#opening.delete(source);
      throw e;
    }
  }

  /** Its device. */
  deviceOf({ source }: Storage): string {
    const device = this.#open.get(source);
    if (device === undefined) throw new Fault("internal", `volume ${source} was not looked for`);
    return device;
  }

  async #prepare(id: string, fstype: string, readOnly: boolean, call: Call): Promise<string> {
    const disk = await this.#find(id, call);
    const device = `/dev/${disk.name}`;
    // Nothing is read of it but whether there is anything: a file system that cannot be mounted is not made anew.
    if (disk.taken || readOnly || !isBlank(device, disk.bytes)) return device;
    if (fstype !== FORMAT) {
      const message = `volume ${id} is empty, and this image makes no ${fstype}: format it before, or ask for ${FORMAT}`;
      throw new Fault("failed_precondition", message);
    }
    const options = ["-q", "-t", FORMAT, "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
    const { exitCode, stderr } = await this.#deps.children.run("/sbin/mke2fs", [...options, device]);
    if (exitCode === 0) return device;
    throw new Fault("failed_precondition", `volume ${id} cannot be formatted: ${stderr.trim().slice(0, 300)}`);
  }

  async #find(id: string, { signal }: Call): Promise<BlockDisk> {
    const { volumes, disks = blockDisks } = this.#deps;
    const index = volumes().indexOf(id);
    if (index < 0) {
      const known = volumes().join(", ") || "none";
      throw new Fault("not_found", `volume ${id} was not attached to this pod's VM when it was made: ${known}`);
    }
    for (const end = performance.now() + PATIENCE_MS; ; await delay(POLL_MS, undefined, { signal })) {
      const found = disks().find((disk) => isVolume(disk, id, index));
      if (found !== undefined) return found;
      if (performance.now() > end) {
        const there = disks().map((disk) => `${disk.name} ${disk.serial || `LUN ${disk.lun}`}`);
        throw new Fault(
          "not_found",
          `volume ${id} does not show in the VM; its disks are ${there.join(", ") || "none"}`,
        );
      }
    }
  }
}

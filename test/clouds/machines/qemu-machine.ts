import type { ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, open, rm } from "node:fs/promises";
import { background, withDeadline } from "../../../src/base/call.ts";
import { exec } from "../../../src/base/exec.ts";
import { Fault } from "../../../src/base/fault.ts";
import { Mutex } from "../../../src/base/mutex.ts";
import { sleep } from "../../../src/base/retry.ts";
import { launchProcess, Qmp } from "../../../src/vmm/index.ts";
import { macOf } from "./addresses.ts";
import type { Network } from "./network.ts";
import { diskDevice, FIRMWARE, filesOf, machineArguments, overlayPath, SPARE_PORTS } from "./qemu-command.ts";
import type { DiskSpec, Machine, MachineEnd, MachineSpec } from "./types.ts";

const START_MS = 60_000;
/** No file of a machine may grow beyond this, 64 GiB: a guest gone wild must not fill the test host's disk. */
const MAX_FILE_BYTES = 64 * 1024 ** 3;

export interface MachinePlace {
  readonly dir: string;
  readonly network: Network;
  readonly taps: readonly string[];
  readonly mtu: number;
  readonly acceleration: "kvm" | "tcg";
  /** After all of it is gone. */
  readonly onRemoved: () => void;
}

/** A machine that is a QEMU process while it runs, and a directory with its disks while it exists. */
export class QemuMachine implements Machine {
  readonly spec: MachineSpec;
  ended: Promise<MachineEnd>;
  readonly #place: MachinePlace;
  readonly #mutex = new Mutex();
  readonly #disks: DiskSpec[];
  /** Spare port by disk. */
  readonly #plugged = new Map<string, string>();
  #process: ChildProcess | undefined;
  #stopping = false;
  #removed: Promise<void> | undefined;

  private constructor(spec: MachineSpec, place: MachinePlace) {
    this.spec = spec;
    this.#place = place;
    this.#disks = [...spec.disks];
    this.ended = Promise.resolve({ how: "stopped", detail: "never started" });
  }

  static async create(spec: MachineSpec, place: MachinePlace): Promise<QemuMachine> {
    await mkdir(place.dir, { recursive: true, mode: 0o700 });
    const machine = new QemuMachine(spec, place);
    await copyFile(FIRMWARE.variables, filesOf(place.dir).variables).catch((cause: unknown) => {
      throw new Fault("failed_precondition", "there is no UEFI firmware here: apt-get install ovmf", {}, { cause });
    });
    for (const disk of spec.disks) await machine.#makeOverlay(disk);
    for (const [i, nic] of spec.nics.entries()) {
      const { address, metadataHopLimit: hopLimit } = nic;
      await place.network.addTap(place.taps[i] ?? "", { mac: macOf(spec.platform, address), address, hopLimit });
    }
    await machine.start();
    return machine;
  }

  get state(): "running" | "stopped" {
    return this.#process === undefined ? "stopped" : "running";
  }

  /** Of QEMU, while it runs. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  async console(maxBytes = 65_536): Promise<string> {
    const file = await open(filesOf(this.#place.dir).console, "r").catch(() => undefined); // it has said nothing yet
    if (file === undefined) return "";
    try {
      const { size } = await file.stat();
      const buffer = Buffer.alloc(Math.min(size, maxBytes));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, size - buffer.length);
      return buffer.subarray(0, bytesRead).toString("utf8");
    } finally {
      await file.close();
    }
  }

  start(): Promise<void> {
    return this.#mutex.run(async () => {
      if (this.#process !== undefined || this.#removed !== undefined) return;
      const { dir, network, taps, mtu, acceleration } = this.#place;
      const files = filesOf(dir);
      await rm(files.qmpSocket, { force: true });
      // A disk that was plugged in is a usual one after the next start.
      this.#plugged.clear();
      const args = machineArguments(this.spec, { dir, disks: this.#disks, taps, mtu, acceleration });
      const [command = "", ...prefix] = network.prefix;
      this.#stopping = false;
      const child = await launchProcess({
        ...{ command, args: [...prefix, "qemu-system-x86_64", ...args], cwd: dir, logPath: files.log },
        ...{ lifetime: "child", cgroupFiles: [], maxFileBytes: MAX_FILE_BYTES },
      });
      this.#process = child;
      this.ended = this.#end(child);
      await this.#qmp(() => undefined, START_MS);
    });
  }

  stop(): Promise<void> {
    return this.#mutex.run(() => this.#kill());
  }

  attachDisk(disk: DiskSpec): Promise<void> {
    return this.#mutex.run(async () => {
      if (this.#disks.some((d) => d.id === disk.id)) throw new Error(`${this.spec.id} has disk ${disk.id} already`);
      await this.#makeOverlay(disk);
      this.#disks.push(disk);
      if (this.#process === undefined) return;
      const port = SPARE_PORTS.find((p) => ![...this.#plugged.values()].includes(p));
      if (port === undefined) throw new Error(`${this.spec.id} has no place for another disk`);
      this.#plugged.set(disk.id, port);
      const { platform } = this.spec;
      const file = { driver: "file", filename: overlayPath(this.#place.dir, disk), cache: { "no-flush": true } };
      await this.#qmp(async (qmp) => {
        await qmp.execute(
          "blockdev-add",
          { driver: "qcow2", "node-name": disk.id, file, discard: "unmap" },
          background(),
        );
        await qmp.execute("device_add", diskDevice(platform, disk, port), background());
      });
    });
  }

  detachDisk(id: string, timeoutMs = 30_000): Promise<void> {
    return this.#mutex.run(async () => {
      const disk = this.#disks.find((d) => d.id === id);
      if (disk === undefined) return;
      if (this.#process !== undefined) {
        await this.#qmp(async (qmp) => {
          await qmp.execute("device_del", { id: `dev-${id}` }, background());
          // The block node is free as soon as the guest has let the device go.
          const call = withDeadline(timeoutMs);
          for (;;) {
            const done = await qmp.execute("blockdev-del", { "node-name": id }, call).then(
              () => true,
              (e: unknown) => !(e instanceof Fault && e.code === "failed_precondition"),
            );
            if (done) break;
            await sleep(100, call);
          }
        });
      }
      this.#disks.splice(this.#disks.indexOf(disk), 1);
      this.#plugged.delete(id);
      if (disk.kept === undefined) await rm(overlayPath(this.#place.dir, disk), { force: true });
    });
  }

  remove(): Promise<void> {
    this.#removed ??= this.#mutex.run(async () => {
      await this.#kill();
      for (const tap of this.#place.taps) await this.#place.network.removeTap(tap).catch(() => undefined); // never made
      await rm(this.#place.dir, { recursive: true, force: true });
      this.#place.onRemoved();
    });
    return this.#removed;
  }

  async #kill(): Promise<void> {
    if (this.#process === undefined) return;
    this.#stopping = true;
    this.#process.kill("SIGKILL");
    await this.ended;
  }

  #end(child: ChildProcess): Promise<MachineEnd> {
    return new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        this.#process = undefined;
        if (this.#stopping) return resolve({ how: "stopped", detail: "" });
        if (code === 0) return resolve({ how: "powered-off", detail: "" });
        const told = this.#log().catch(String);
        void told.then((log) => resolve({ how: "crashed", detail: `QEMU ended with ${code ?? signal}: ${log}` }));
      });
    });
  }

  async #log(): Promise<string> {
    const file = await open(filesOf(this.#place.dir).log, "r").catch(() => undefined); // it is being removed
    if (file === undefined) return "";
    try {
      return (await file.readFile("utf8")).trim().slice(-2000);
    } finally {
      await file.close();
    }
  }

  async #makeOverlay(disk: DiskSpec): Promise<void> {
    if (disk.kept !== undefined && existsSync(disk.kept)) return;
    const backing = disk.image === undefined ? [] : ["-F", "raw", "-b", disk.image];
    if (disk.image === undefined && disk.sizeGiB === undefined) throw new Error(`disk ${disk.id} has no size`);
    const size = disk.sizeGiB === undefined ? [] : [`${disk.sizeGiB}G`];
    const args = ["create", "-q", "-f", "qcow2", ...backing, overlayPath(this.#place.dir, disk), ...size];
    await exec("qemu-img", args, background());
  }

  /** Talks to QEMU, which listens as soon as it is set up. */
  async #qmp(work: (qmp: Qmp) => unknown, timeoutMs = 10_000): Promise<void> {
    const call = withDeadline(timeoutMs);
    for (;;) {
      try {
        await using qmp = await Qmp.open(filesOf(this.#place.dir).qmpSocket, call);
        await work(qmp);
        return;
      } catch (e) {
        if (this.#process === undefined) throw new Error((await this.ended).detail || "QEMU has ended");
        if (!(e instanceof Fault && e.code === "unavailable")) throw e;
        await sleep(20, call);
      }
    }
  }
}

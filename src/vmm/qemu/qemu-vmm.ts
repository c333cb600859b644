import type { ChildProcess } from "node:child_process";
import { access, readFile, rm } from "node:fs/promises";
import type { Call } from "../../base/call.ts";
import { background, withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { KeyedMutex } from "../../base/mutex.ts";
import { ended, race, sleep } from "../../base/retry.ts";
import { joinBridge } from "../host-bridge.ts";
import { step } from "../step.ts";
import type { Vmm, VmmHandle, VmmSpec } from "../vmm.ts";
import { watchBoot } from "./boot-watch.ts";
import { createCgroups, removeCgroups } from "./cgroup.ts";
import { qemuArguments, tapName } from "./command-line.ts";
import { readConsole, trimConsole } from "./console.ts";
import { createOverlay, createSeed } from "./disk.ts";
import { type KvmVerdict, probeKvm } from "./kvm-probe.ts";
import { launch } from "./launch.ts";
import { filesIn, type VmFiles } from "./layout.ts";
import { findByArgument, hostBootId, identify, isAlive, killAndWait, type ProcessIdentity } from "./process.ts";
import { forwardedPort, Qmp } from "./qmp.ts";
import { readState, type VmState, writeState } from "./state.ts";

export interface QemuDeps {
  readonly log: Logger;
  /** Program to run; "qemu-system-x86_64" from PATH by default. */
  readonly qemuPath?: string;
  /** Where the verdict of the KVM probe is kept until the next boot. */
  readonly cacheDir: string;
  /** How long a guest may show no sign of life while it is served, ms. */
  readonly noLifeMs?: number;
}

/** A guest of ours is up after 3 s of emulated time; a slow host takes several times as long. */
const NO_LIFE_MS = 30_000;
/** Steps of a start, ms; each takes less than a second on a host that is not busy. */
const FILES_MS = 60_000;
const QMP_MS = 15_000;
const READY_MS = 60_000;
const TRIM_INTERVAL_MS = 5000;
const POLL_MS = 500;
const KILL_TIMEOUT_MS = 10_000;

/** Drives qemu-system-x86_64. One object per process; any number of VMs, each in its own directory. */
export class QemuVmm implements Vmm, AsyncDisposable {
  readonly name = "qemu";
  readonly #log: Logger;
  readonly #qemuPath: string;
  readonly #cacheDir: string;
  /** One change at a time per directory. */
  readonly #locks = new KeyedMutex();
  /** Starts that run now: destroy() cuts them short. */
  readonly #starting = new Map<string, AbortController>();
  /** Our own children that live, by directory. */
  readonly #children = new Map<string, { readonly lifetime: VmmSpec["lifetime"]; readonly exit: Promise<string> }>();
  readonly #known = new Set<string>();
  readonly #noLifeMs: number;
  /** Guests that nobody has seen live yet. */
  readonly #booting = new Map<string, AbortController>();
  /** Why VMs were given up. */
  readonly #givenUp = new Map<string, string>();
  #probing: Promise<KvmVerdict> | undefined;
  readonly #trimTimer: NodeJS.Timeout;

  constructor(deps: QemuDeps) {
    this.#log = deps.log;
    this.#qemuPath = deps.qemuPath ?? "qemu-system-x86_64";
    this.#cacheDir = deps.cacheDir;
    this.#noLifeMs = deps.noLifeMs ?? NO_LIFE_MS;
    this.#trimTimer = setInterval(() => void this.#trimConsoles(), TRIM_INTERVAL_MS).unref();
  }

  async start(spec: VmmSpec, call: Call): Promise<VmmHandle> {
    return this.#locks.run(spec.dir, async () => {
      const living = await this.#find(spec.dir, call);
      if (living !== undefined) return living;
      const cut = new AbortController();
      this.#starting.set(spec.dir, cut);
      try {
        const bounded = { ...call, signal: AbortSignal.any([call.signal, cut.signal]) };
        return await this.#startNew(spec, bounded).catch((err: unknown) => {
          if (Fault.from(err).context.step === undefined || bounded.signal.aborted) throw err;
          // Nothing ran in it: whatever hung may go well the next time.
          this.#log.warn({ err, dir: spec.dir }, "the VM did not start and is started anew");
          return this.#startNew(spec, bounded);
        });
      } catch (e) {
        await this.#clear(spec.dir);
        throw e;
      } finally {
        this.#starting.delete(spec.dir);
      }
    });
  }

  async find(dir: string, call: Call): Promise<VmmHandle | undefined> {
    if (this.#starting.has(dir)) return undefined; // not yet a VM: start() will tell
    return this.#find(dir, call);
  }

  async wait(handle: VmmHandle, call: Call): Promise<{ readonly reason: string }> {
    const child = this.#children.get(handle.dir);
    if (child !== undefined) {
      const exit = await race(child.exit, call);
      return { reason: await this.#describeEnd(handle, exit) };
    }
    while (await isAlive(handle)) await sleep(POLL_MS, call);
    return { reason: await this.#describeEnd(handle, "ended") };
  }

  async destroy(dir: string, call: Call): Promise<void> {
    this.#starting.get(dir)?.abort(new Fault("cancelled", "the VM is being destroyed"));
    await this.#locks.run(dir, async () => {
      if (call.signal.aborted) throw ended(call);
      await this.#clear(dir);
      await rm(dir, { recursive: true, force: true });
    });
  }

  /** Whether KVM is usable with these boot files; see probeKvm. Asked once at a time, however many VMs start. */
  async kvm(boot: Pick<VmmSpec, "kernelPath" | "initrdPath">, call: Call): Promise<KvmVerdict> {
    const { kernelPath, initrdPath } = boot;
    this.#probing ??= probeKvm(
      { kernelPath, initrdPath, qemuPath: this.#qemuPath, cacheDir: this.#cacheDir },
      background(), // it is short, and its verdict serves others than who asked first
    ).finally(() => {
      this.#probing = undefined;
    });
    return race(this.#probing, call);
  }

  /** Kills the VMs of lifetime `child`; detached ones live on. Their directories stay for destroy(). */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#trimTimer);
    for (const booting of this.#booting.values()) booting.abort();
    for (const start of this.#starting.values()) start.abort(new Fault("cancelled", "the driver is being closed"));
    const mine = [...this.#children].filter(([, child]) => child.lifetime === "child");
    await Promise.all(mine.map(([dir]) => this.#locks.run(dir, () => this.#kill(dir))));
  }

  async #startNew(spec: VmmSpec, call: Call): Promise<VmmHandle> {
    const files = filesIn(spec.dir);
    await this.#clear(spec.dir); // what an earlier attempt left
    await checkReadable({ kernel: spec.kernelPath, initrd: spec.initrdPath, image: spec.imagePath });
    const acceleration = await this.#acceleration(spec, call);
    const [diskBytes] = await step(`making the disks of ${spec.name}`, FILES_MS, call, (c) =>
      Promise.all([createOverlay(spec, files, c), createSeed(spec, files, c)]),
    );
    const place = spec.tap === undefined ? {} : { bridge: spec.tap.bridge, address: spec.tap.address };
    const common = { version: 1, hostBootId: await hostBootId(), guestPort: spec.guestPort, ...place } as const;
    await writeState(files.state, { ...common, state: "starting" });
    const child = await launch({
      command: this.#qemuPath,
      args: qemuArguments(spec, files, acceleration),
      cwd: spec.dir,
      logPath: files.log,
      lifetime: spec.lifetime,
      cgroupFiles: spec.lifetime === "detached" ? await createCgroups(spec.dir) : [],
      maxFileBytes: diskBytes * 1.05 + 64 * 1024 ** 2, // the overlay full, with qcow2's own tables
    });
    const exit = this.#adopt(spec, child);
    const ready = await step(`setting QEMU up for ${spec.name}`, READY_MS, call, (c) =>
      Promise.race([this.#whenReady(spec.dir, files, common, c), exit]),
    );
    const process = await identify(child.pid ?? 0);
    if (typeof ready === "string" || process === undefined) {
      const said = (await readFile(files.log, "utf8")).trim().slice(-2000);
      throw new Fault(
        "failed_precondition",
        `QEMU for ${spec.name} did not start (${String(ready)}): ${said || "it said nothing"}`,
      );
    }
    await writeState(files.state, { ...common, ...process, ...ready, state: "running" });
    this.#known.add(spec.dir);
    if (spec.lifeSign !== undefined) void this.#watchBoot(spec.dir, process, spec.lifeSign);
    return { dir: spec.dir, ...process, ...ready };
  }

  /** Never rejects. */
  async #watchBoot(dir: string, process: ProcessIdentity, lifeSign: string): Promise<void> {
    const over = new AbortController();
    this.#booting.set(dir, over);
    const watch = { dir, process, lifeSign, noLifeMs: this.#noLifeMs, log: this.#log };
    try {
      const why = await watchBoot(watch, { signal: over.signal });
      if (why === undefined || over.signal.aborted) return;
      this.#givenUp.set(dir, why);
      this.#log.error({ dir, pid: process.pid }, `${why}: the VM is ended`);
      await killAndWait(process, KILL_TIMEOUT_MS);
    } catch (err) {
      // The VM goes on unwatched: whoever dials it has a deadline.
      if (!over.signal.aborted) this.#log.warn({ err, dir }, "cannot watch a guest come to life");
    } finally {
      if (this.#booting.get(dir) === over) this.#booting.delete(dir);
    }
  }

  #adopt(spec: VmmSpec, child: ChildProcess): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>();
    child.once("exit", (code, signal) => {
      // Another may have its place by now.
      if (this.#children.get(spec.dir)?.exit === promise) this.#children.delete(spec.dir);
      resolve(signal === null ? `exit ${code}` : `killed by ${signal}`);
    });
    child.unref();
    this.#children.set(spec.dir, { lifetime: spec.lifetime, exit: promise });
    return promise;
  }

  /** Resolves when QEMU answers on QMP: by then disks, memory and the port forward or tap device are set up. */
  async #whenReady(dir: string, files: VmFiles, vm: Place, call: Call): Promise<Reached> {
    for (;;) {
      try {
        return await step("QEMU's answer on its control socket", QMP_MS, call, (c) => reach(dir, files, vm, c));
      } catch (e) {
        if (!(e instanceof Fault && e.code === "unavailable")) throw e;
        if (!this.#children.has(dir)) return new Promise(() => undefined); // ended: `exit` tells it
        await sleep(10, call);
      }
    }
  }

  async #find(dir: string, call: Call): Promise<VmmHandle | undefined> {
    const files = filesIn(dir);
    const state = await readState(files.state);
    if (state === undefined || state.hostBootId !== (await hostBootId())) return undefined;
    if (state.state === "running") {
      const { pid, startTicks, hostPort, address } = state;
      const handle = { dir, pid, startTicks, hostPort, ...(address === undefined ? {} : { address }) };
      if (!(await isAlive(handle))) return undefined;
      this.#known.add(dir);
      return handle;
    }
    // Whoever started it died before it could write down what it had started.
    const [process] = await findByArgument(files.pid);
    if (process === undefined) return undefined;
    try {
      const reached = await reach(dir, files, state, withDeadline(5000, call));
      await writeState(files.state, { ...state, ...process, ...reached, state: "running" });
      this.#known.add(dir);
      return { dir, ...process, ...reached };
    } catch (e) {
      this.#log.warn({ dir, pid: process.pid, err: e }, "a half-started QEMU does not answer and is given up");
      return undefined;
    }
  }

  /** Ends whatever runs for this directory and removes the driver's files; repeatable. */
  async #clear(dir: string): Promise<void> {
    const files = filesIn(dir);
    this.#booting.get(dir)?.abort();
    await this.#kill(dir);
    await removeCgroups(dir);
    this.#known.delete(dir);
    this.#givenUp.delete(dir);
    for (const path of Object.values(files) as string[]) await rm(path, { force: true });
  }

  async #kill(dir: string): Promise<void> {
    const files = filesIn(dir);
    const state = await readState(files.state);
    if (state === undefined || state.hostBootId !== (await hostBootId())) return;
    const targets: ProcessIdentity[] = state.state === "running" ? [state] : await findByArgument(files.pid);
    for (const target of targets) {
      if (await killAndWait(target, KILL_TIMEOUT_MS)) continue;
      throw new Fault(
        "unavailable",
        `QEMU (pid ${target.pid}) does not end after SIGKILL: it hangs in the kernel, ${dir} is kept`,
      );
    }
  }

  async #acceleration(spec: VmmSpec, call: Call): Promise<"kvm" | "tcg"> {
    if (spec.acceleration === "tcg") return "tcg";
    const verdict = await this.kvm(spec, call);
    if (verdict.works) return "kvm";
    if (spec.acceleration === "auto") return "tcg";
    throw new Fault(
      "failed_precondition",
      `KVM is asked for but does not work here: ${verdict.detail}; use acceleration "auto" or "tcg"`,
    );
  }

  async #describeEnd(handle: VmmHandle, how: string): Promise<string> {
    const why = this.#givenUp.get(handle.dir);
    const end = await describeEnd(handle, how);
    return why === undefined ? end : `${why}; ${end}`;
  }

  async #trimConsoles(): Promise<void> {
    for (const dir of this.#known) {
      await trimConsole(dir).catch((e: unknown) => this.#log.warn({ dir, err: e }, "console not cut"));
    }
  }
}

type Place = Pick<VmState, "guestPort" | "bridge" | "address">;
type Reached = Pick<VmmHandle, "hostPort" | "address">;

/** Finds out where a VM is dialled, and hangs it on its bridge. Repeatable. @throws Fault unavailable: QEMU is not up */
async function reach(dir: string, files: VmFiles, vm: Place, call: Call): Promise<Reached> {
  await using qmp = await Qmp.open(files.qmpSocket, call);
  const { guestPort, bridge, address } = vm;
  if (bridge === undefined || address === undefined) return { hostPort: await forwardedPort(qmp, guestPort, call) };
  await joinBridge(tapName(dir), bridge, call);
  return { hostPort: guestPort, address };
}

async function checkReadable(paths: Readonly<Record<string, string>>): Promise<void> {
  for (const [what, path] of Object.entries(paths)) {
    await access(path).catch((cause: unknown) => {
      throw new Fault(
        "failed_precondition",
        `the ${what} ${path} cannot be read: build the image with "kata-remote image build"`,
        {},
        { cause },
      );
    });
  }
}

/** How a VM ended, with the last words of QEMU and of the guest. */
async function describeEnd(handle: VmmHandle, how: string): Promise<string> {
  const log = await readFile(filesIn(handle.dir).log, "utf8").catch(() => ""); // the directory may be gone already
  const console = (await readConsole(handle.dir, 4000).catch(() => undefined)) ?? "";
  const lastLine = console
    .split(/\r?\n/)
    .filter((line) => line.trim() !== "")
    .at(-1);
  const parts = [`QEMU (pid ${handle.pid}) ${how}`];
  if (log.trim() !== "") parts.push(log.trim().slice(-500));
  if (lastLine !== undefined) parts.push(`last console line: ${lastLine.trim().slice(0, 200)}`);
  return parts.join("; ");
}

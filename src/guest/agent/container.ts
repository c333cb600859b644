import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { Mutex } from "../../base/mutex.ts";
import { race } from "../../base/retry.ts";
import type { CreateContainerRequest } from "../../gen/agent/agent.ts";
import type { LinuxResources, Process } from "../../gen/agent/oci.ts";
import { DIAL_PROGRAM } from "../../guestwire/index.ts";
import type { Children } from "../system/children.ts";
import { ConsoleSocket } from "../system/console-socket.ts";
import { Cgroup } from "./cgroup.ts";
import { removeCopies } from "./container-copies.ts";
import type { Crun, CrunTarget } from "./crun.ts";
import { nameExhaustion } from "./exhaustion.ts";
import { GuestProcess } from "./guest-process.ts";
import { LocalConnection } from "./local-connection.ts";
import { ociText, processToOci, resourcesToOci, specToOci } from "./oci-json.ts";
import type { OomWatch } from "./oom-watch.ts";
import { type AgentPaths, POD_NETWORK_NAMESPACE } from "./paths.ts";
import { makePipeIo, makeTerminalIo, type ProcessIo } from "./process-io.ts";
import type { Sandbox } from "./sandbox.ts";
import { initSignal, SIGKILL } from "./signals.ts";
import type { Storages } from "./storages.ts";

export interface ContainerDeps {
  readonly paths: AgentPaths;
  readonly crun: Crun;
  readonly children: Children;
  readonly sandbox: Sandbox;
  readonly storages: Storages;
  readonly oom: OomWatch;
}

/** Ended processes whose exit code and output are kept for readers that come late or again, per container. */
const KEPT_PROCESSES = 32;

/** One container: its bundle, its mounts, its init and the processes started beside it. */
export class Container {
  readonly id: string;
  readonly cgroup: Cgroup;
  readonly terminationLog: string | undefined;
  readonly #deps: ContainerDeps;
  readonly #bundle: string;
  readonly #lock = new Mutex();
  /** Ends a creation that somebody wants removed meanwhile. */
  readonly #given = new AbortController();
  readonly #mountPoints: string[] = [];
  readonly #processes = new Map<string, GuestProcess>();
  readonly #starting = new Set<string>();
  #state: "new" | "created" | "started" | "removed" = "new";
  #frozen = false;
  #serial = 0;

  constructor(request: CreateContainerRequest, deps: ContainerDeps) {
    this.id = request.containerId;
    this.#deps = deps;
    this.#bundle = `${deps.paths.run}/${this.id}`;
    this.cgroup = new Cgroup(`/pod/${this.id}`);
    this.terminationLog = terminationLogOf(request);
  }

  /** Pulls and mounts storages and sets the container up; what was done is undone when that fails or the pull is given up. */
  create(request: CreateContainerRequest, call: Call): Promise<void> {
    return this.#lock.run(async () => {
      const { storages, sandbox, crun, oom } = this.#deps;
      const spec = request.OCI;
      if (spec?.Root === undefined || spec.Process === undefined) {
        throw new Fault(
          "invalid_argument",
          `container ${this.id}: the OCI spec lacks ${spec?.Root === undefined ? "root" : "process"}`,
        );
      }
      try {
        mkdirSync(this.#bundle, { recursive: true, mode: 0o700 });
        const given = AbortSignal.any([call.signal, this.#given.signal]);
        await storages.prepare(request.storages, this.id, { signal: given });
        for (const storage of request.storages) this.#mountPoints.push(storages.add(storage, this.id));
        const placement = sandbox.placementOf(this.id, spec.Root.Path, request.sandboxPidns);
        const process = storages.processOf(this.id, request.storages, spec.Process);
        writeFileSync(`${this.#bundle}/config.json`, ociText(specToOci({ ...spec, Process: process }, placement)));
        const init = await this.#launch(this.id, process, (target) => crun.create({ ...target, bundle: this.#bundle }));
        this.#state = "created";
        sandbox.containerCreated(init.pid);
        oom.start(this.id, this.cgroup);
        void init.exited.then(() => oom.check(this.id)); // never rejects
      } catch (e) {
        const named = nameExhaustion(e, this.#deps.paths); // before the space is free again
        await this.#tearDown();
        throw named;
      }
    });
  }

  start(): Promise<void> {
    return this.#lock.run(async () => {
      if (this.#state !== "created")
        throw new Fault("failed_precondition", `container ${this.id} is ${this.#state}, not created`);
      await this.#deps.crun.start(this.id);
      this.#state = "started";
    });
  }

  /** Starts one more process; several may be starting at a time. */
  async exec(execId: string, process: Process): Promise<void> {
    if (this.#state !== "started" || !this.init.running) {
      throw new Fault("failed_precondition", `container ${this.id} is not running`);
    }
    if (this.#frozen) throw new Fault("failed_precondition", `container ${this.id} is paused: resume it first`);
    if (this.#processes.has(execId) || this.#starting.has(execId)) {
      throw new Fault("already_exists", `container ${this.id} has a process "${execId}" already`);
    }
    if (process.Args[0] === DIAL_PROGRAM) {
      this.#processes.set(execId, LocalConnection.open(POD_NETWORK_NAMESPACE, process.Args[1] ?? ""));
      this.#forgetOldest();
      return;
    }
    this.#starting.add(execId);
    const file = `${this.#bundle}/process-${++this.#serial}.json`;
    try {
      writeFileSync(file, ociText(processToOci(process)));
      const oomScore = Number(process.OOMScoreAdj);
      await this.#launch(execId, process, (target) => this.#deps.crun.exec({ ...target, processFile: file, oomScore }));
    } catch (e) {
      throw nameExhaustion(e, this.#deps.paths);
    } finally {
      this.#starting.delete(execId);
      rmSync(file, { force: true });
    }
    this.#forgetOldest();
  }

  get init(): GuestProcess {
    return this.process("");
  }

  /** @param execId "" or the container's id is its init. @throws Fault not_found */
  process(execId: string): GuestProcess {
    const found = this.#processes.get(execId === "" ? this.id : execId);
    if (found === undefined) throw new Fault("not_found", `container ${this.id} has no process "${execId}"`);
    return found;
  }

  /** @throws Fault not_found when the process is not there or has exited */
  signal(execId: string, signal: number): void {
    const target = this.process(execId);
    if (target !== this.init) target.signal(signal);
    else if (execId === "" && signal === SIGKILL) {
      if (!target.running) throw new Fault("not_found", `container ${this.id} has exited`);
      this.cgroup.kill();
      if (target.running) target.signal(signal); // created but not started: it may not be in the group yet
    } else target.signal(initSignal(target.pid, signal));
  }

  async setFrozen(frozen: boolean): Promise<void> {
    if (!this.init.running) throw new Fault("failed_precondition", `container ${this.id} is not running`);
    await this.cgroup.setFrozen(frozen);
    this.#frozen = frozen;
  }

  async update(resources: LinuxResources): Promise<void> {
    await this.#lock.run(async () => {
      const file = `${this.#bundle}/resources.json`;
      const { devices: _unchanged, ...rest } = resourcesToOci(resources);
      if (Object.keys(rest).length === 0) return;
      writeFileSync(file, ociText(rest));
      await this.#deps.crun.update(this.id, file);
    });
  }

  /** Kills what runs and removes everything of the container. */
  remove(call: Call): Promise<void> {
    this.#given.abort(new Fault("cancelled", `container ${this.id} is removed`));
    return this.#lock.run(async () => {
      if (this.#state === "removed") return;
      this.cgroup.kill();
      for (const process of this.#processes.values()) {
        const ours = process === this.#processes.get(this.id) || process instanceof LocalConnection;
        if (process.running && ours) process.signal(SIGKILL);
        await race(process.exited, call);
      }
      await this.#tearDown();
    });
  }

  async #tearDown(): Promise<void> {
    const { crun, oom, storages } = this.#deps;
    oom.stop(this.id);
    for (const process of this.#processes.values()) process.io.close();
    this.#processes.clear();
    this.#state = "removed";
    try {
      await crun.delete(this.id);
    } finally {
      for (const mountPoint of this.#mountPoints.splice(0).reverse()) await storages.release(mountPoint);
      storages.forget(this.id);
      rmSync(this.#bundle, { recursive: true, force: true });
      removeCopies(this.#deps.paths, this.id);
    }
  }

  /** Gives the runtime the process's streams, and waits for its process from then on. */
  async #launch(execId: string, process: Process, run: (target: CrunTarget) => Promise<number>): Promise<GuestProcess> {
    const pidFile = `${this.#bundle}/pid-${++this.#serial}`;
    const { pid, io } = process.Terminal
      ? await withTerminal(`${this.#bundle}/console-${this.#serial}`, process, (stdio) =>
          run({ id: this.id, pidFile, stdio }),
        )
      : await withPipes((stdio) => run({ id: this.id, pidFile, stdio }));
    const started = new GuestProcess(pid, io, this.#deps.children.exitOf(pid));
    this.#processes.set(execId, started);
    return started;
  }

  #forgetOldest(): void {
    let ended = 0;
    for (const [id, process] of [...this.#processes].reverse()) {
      if (process.running || id === this.id) continue;
      ended += 1;
      if (ended <= KEPT_PROCESSES) continue;
      process.io.close();
      this.#processes.delete(id);
    }
  }
}

type Started = { readonly pid: number; readonly io: ProcessIo };

async function withPipes(run: (stdio: [number, number, number]) => Promise<number>): Promise<Started> {
  const pipes = makePipeIo();
  try {
    return { pid: await run([...pipes.childStdio] as [number, number, number]), io: pipes.io };
  } catch (e) {
    pipes.io.close();
    throw e;
  } finally {
    pipes.handedOver();
  }
}

async function withTerminal(
  path: string,
  process: Process,
  run: (stdio: { readonly consoleSocket: string }) => Promise<number>,
): Promise<Started> {
  using socket = new ConsoleSocket(path);
  const pid = await run({ consoleSocket: path });
  const io = makeTerminalIo(socket.receive());
  const size = process.ConsoleSize;
  if (size !== undefined && size.Height > 0) io.resize(size.Height, size.Width);
  return { pid, io };
}

/**
 * Guest's copy of the file that kubelet mounts for a container's last words. Source: kubelet's annotation of that name;
 * containerd passes it on when its runtime configuration lists it.
 */
function terminationLogOf(request: CreateContainerRequest): string | undefined {
  const path = request.OCI?.Annotations["io.kubernetes.container.terminationMessagePath"];
  return request.OCI?.Mounts.find((m) => m.destination === path)?.source;
}

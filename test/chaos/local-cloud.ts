import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { isAlive, listProcesses, signal } from "../e2e/harness/processes.ts";
import type { Cloud, CloudVm } from "./cloud.ts";
import type { Timeline } from "./timeline.ts";

const LOOK_MS = 200;

interface SeenVm {
  readonly id: string;
  readonly pid: number;
  readonly began: number;
  ended: number | undefined;
}

/** Provider local with real QEMU VMs, seen from outside as processes and directories of this machine. */
export class LocalCloud implements Cloud {
  readonly kind = "local";
  readonly provider = "local";
  readonly env: NodeJS.ProcessEnv = {};
  readonly #stateDir: string;
  readonly #imageDir: string;
  readonly #timeline: Timeline;
  readonly #seen: SeenVm[] = [];
  readonly #watch: NodeJS.Timeout;

  constructor(options: { readonly folder: string; readonly imageDir: string; readonly timeline: Timeline }) {
    this.#stateDir = join(options.folder, "vms");
    this.#imageDir = options.imageDir;
    this.#timeline = options.timeline;
    this.#watch = setInterval(() => this.#look(), LOOK_MS);
  }

  get providerConfig(): Readonly<Record<string, unknown>> {
    return {
      ...{ stateDir: this.#stateDir, imageDir: this.#imageDir, cacheDir: this.#stateDir },
      // Emulation everywhere: a case must not depend on what a machine has.
      ...{ acceleration: "tcg", network: "user" },
    };
  }

  /** Nobody is between the provider and its VMs. */
  canHave(): boolean {
    return false;
  }

  disturb(): void {
    throw new Error("provider local has no troubles that a case can make");
  }

  calm(): void {
    // Nothing disturbs it.
  }

  history(): readonly CloudVm[] {
    this.#look();
    return this.#seen.map(({ id, pid, began, ended }) => ({ id: `VM ${pid} of ${id}`, owners: [id], began, ended }));
  }

  leftovers(): readonly string[] {
    this.#look();
    const living = this.#seen.filter((vm) => vm.ended === undefined).map((vm) => `VM ${vm.pid} of ${vm.id}`);
    const kept = existsSync(this.#stateDir)
      ? readdirSync(this.#stateDir).filter((name) => name.includes("local-"))
      : [];
    return [...living, ...kept.map((name) => `directory ${name}`)];
  }

  /** A VM of this host that dies is always noticed: whose process is gone is gone. */
  killNewest(): string | undefined {
    this.#look();
    const newest = this.#seen.filter((vm) => vm.ended === undefined).at(-1);
    if (newest !== undefined) signal(newest.pid, "SIGKILL");
    return newest?.id;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#watch);
    this.#look();
    for (const vm of this.#seen) if (vm.ended === undefined) signal(vm.pid, "SIGKILL");
  }

  #look(): void {
    for (const vm of this.#seen) if (vm.ended === undefined && !isAlive(vm.pid)) vm.ended = Date.now();
    for (const { pid, command } of listProcesses()) {
      if (!/^\S*qemu-system/.test(command) || !command.includes(this.#stateDir)) continue;
      if (this.#seen.some((vm) => vm.pid === pid && vm.ended === undefined)) continue;
      const id = /\/(local-[^/ ,]+)\//.exec(command)?.[1] ?? "unknown";
      this.#seen.push({ id, pid, began: Date.now(), ended: undefined });
      this.#timeline.note(`VM ${pid} of ${id} runs`);
      this.#timeline.step("vm-seen");
    }
  }
}

import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { mkdirPrivate, readIfThere, removeTemporaries, writeFileAtomic } from "../../base/files.ts";
import { parseSandboxId, type SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import type { VmRequest } from "./hypervisor.ts";

/** What the node knows of a sandbox of its: enough for an adaptor that lost its record to write it again. */
export interface LiveSandbox {
  readonly instanceId?: string;
  readonly addresses?: readonly string[];
  readonly port?: number;
  readonly guestKey?: string;
  readonly verifiedBy?: "console" | "address";
  readonly ready?: boolean;
  readonly pod?: VmRequest["pod"];
  readonly containerd?: VmRequest["containerd"];
}

const SUFFIX = ".json";

/**
 * Every sandbox from before its CreateVm is sent until its stop, one file each as soon as it has an instance, so that the
 * next daemon can say as much of them.
 */
export class LiveSandboxes {
  readonly #dir: string;
  readonly #log: Logger;
  readonly #known = new Map<SandboxId, LiveSandbox>();
  /** The part that the adaptor has acknowledged: only these can be lost. */
  readonly #acknowledged = new Set<SandboxId>();
  readonly #writing = new Map<SandboxId, Promise<void>>();

  private constructor(dir: string, log: Logger) {
    this.#dir = dir;
    this.#log = log;
  }

  static async open(dir: string, log: Logger): Promise<LiveSandboxes> {
    await mkdirPrivate(dir);
    await removeTemporaries(dir);
    return new LiveSandboxes(dir, log);
  }

  get ids(): readonly SandboxId[] {
    return [...this.#known.keys()];
  }

  get acknowledged(): ReadonlySet<SandboxId> {
    return new Set(this.#acknowledged);
  }

  has(id: SandboxId): boolean {
    return this.#known.has(id);
  }

  get(id: SandboxId): LiveSandbox | undefined {
    return this.#known.get(id);
  }

  entries(): readonly (readonly [SandboxId, LiveSandbox])[] {
    return [...this.#known];
  }

  add(id: SandboxId, sandbox: LiveSandbox): void {
    this.#known.set(id, { ...this.#known.get(id), ...sandbox });
  }

  acknowledge(id: SandboxId): void {
    if (this.#known.has(id)) this.#acknowledged.add(id);
  }

  /** Learns more of one that lives, and has it on disk when it resolves. A file that cannot be written is only logged. */
  async learn(id: SandboxId, more: LiveSandbox): Promise<void> {
    const known = this.#known.get(id);
    if (known === undefined) return;
    const next = { ...known, ...more };
    this.#known.set(id, next);
    await this.#write(id, () => writeFileAtomic(this.#path(id), JSON.stringify(next)));
  }

  async remove(id: SandboxId): Promise<void> {
    this.#known.delete(id);
    this.#acknowledged.delete(id);
    await this.#write(id, () => rm(this.#path(id), { force: true }));
  }

  /** Takes up what an earlier daemon knew of these; files of others are removed. */
  async restore(live: readonly SandboxId[]): Promise<void> {
    // At once: a report that goes out while files are read must name them, or the adaptor stops them.
    for (const id of live) this.add(id, {});
    for (const id of live) {
      const stored = parse(await readIfThere(this.#path(id)));
      this.add(id, { ...stored, ...this.#known.get(id) });
      if (stored?.instanceId !== undefined) this.acknowledge(id);
    }
    for (const name of await readdir(this.#dir)) {
      if (!name.endsWith(SUFFIX) || this.#known.has(parseSandboxId(name.slice(0, -SUFFIX.length)))) continue;
      await rm(join(this.#dir, name), { force: true });
    }
  }

  /** What is being written is on disk. */
  async settled(): Promise<void> {
    await Promise.all(this.#writing.values());
  }

  /** One after the other for each sandbox. */
  #write(id: SandboxId, work: () => Promise<void>): Promise<void> {
    const before = this.#writing.get(id) ?? Promise.resolve();
    const written = before.then(work).catch((err: unknown) => {
      // The adaptor's record is the truth; this is for the day that it is lost.
      this.#log.warn({ sandbox: id, err }, "what is known of a sandbox could not be written down");
    });
    this.#writing.set(id, written);
    return written.finally(() => {
      if (this.#writing.get(id) === written) this.#writing.delete(id);
    });
  }

  #path(id: SandboxId): string {
    return join(this.#dir, `${id}${SUFFIX}`);
  }
}

function parse(text: string | undefined): LiveSandbox | undefined {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as LiveSandbox;
  } catch {
    return undefined; // written by a crash of the file system; the id is what matters
  }
}

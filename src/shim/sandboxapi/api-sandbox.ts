import { deferred } from "../../base/deferred.ts";
import { Fault } from "../../base/fault.ts";
import type { Logger } from "../../base/log.ts";
import { CreateSandboxRequest } from "../../gen/containerd/runtime/sandbox/v1/sandbox.ts";
import type { Exit, PodExtras, PodOverrides, PodSandbox } from "../sandbox/index.ts";
import { type PodConfig, readPodConfig } from "./pod-config.ts";
import { podFiles } from "./pod-files.ts";
import type { SandboxRecord, SandboxRecords } from "./sandbox-record.ts";

/** One pod between its CreateSandbox and its ShutdownSandbox. */
export class ApiSandbox {
  readonly config: PodConfig;
  readonly request: CreateSandboxRequest;
  readonly overrides: PodOverrides;
  readonly #records: SandboxRecords;
  readonly #log: Logger;
  readonly #ended = deferred<Exit>();
  #record: SandboxRecord;
  #sandbox: PodSandbox | undefined;
  #starting: Promise<void> | undefined;
  #forgotten = false;

  constructor(
    record: SandboxRecord,
    overrides: PodOverrides,
    deps: { readonly records: SandboxRecords; readonly log: Logger },
  ) {
    this.#record = record;
    this.overrides = overrides;
    this.request = CreateSandboxRequest.decode(Buffer.from(record.request, "base64"));
    this.config = readPodConfig(this.request);
    this.#records = deps.records;
    this.#log = deps.log.child({ container: record.id });
    const { exit } = record;
    if (exit !== undefined) this.#ended.resolve({ status: exit.status, at: new Date(exit.atMs) });
  }

  get record(): SandboxRecord {
    return this.#record;
  }

  get pid(): number {
    return this.#record.pid;
  }

  /** Its VM, while that lives. */
  get sandbox(): PodSandbox | undefined {
    return this.#record.exit === undefined ? this.#sandbox : undefined;
  }

  get extras(): PodExtras {
    return { files: podFiles(this.#record.bundle), sysctls: this.config.sysctls };
  }

  get exit(): Exit | undefined {
    const { exit } = this.#record;
    return exit === undefined ? undefined : { status: exit.status, at: new Date(exit.atMs) };
  }

  get ended(): Promise<Exit> {
    return this.#ended.promise;
  }

  async save(): Promise<void> {
    await this.#records.write(this.#record, () => (this.#forgotten ? undefined : this.#record));
  }

  /**
   * Has its VM made and booted by `begin`. The same request again is success.
   * @throws Fault failed_precondition when it was started before
   */
  async start(key: string | undefined, begin: () => Promise<PodSandbox>): Promise<void> {
    const again = key !== undefined && this.#record.startKey === key;
    if (again && this.#starting !== undefined) return await this.#starting;
    if (again && this.sandbox !== undefined) return;
    if (this.#record.startKey !== undefined || this.#record.exit !== undefined) {
      const is = this.#record.exit === undefined ? "started already" : "stopped";
      throw new Fault("failed_precondition", `pod sandbox ${this.#record.id} cannot be started: it is ${is}`);
    }
    this.#record = { ...this.#record, startKey: key ?? "" };
    this.#starting = begin().then(() => undefined);
    await this.#starting;
  }

  /** Before its VM is asked for. */
  async attach(sandbox: PodSandbox): Promise<void> {
    this.#sandbox = sandbox;
    this.#record = { ...this.#record, sandboxId: sandbox.id };
    await this.save();
    void sandbox.ended.then((exit) => this.end(exit));
  }

  /** Goes on with the VM of an earlier daemon. */
  resume(sandbox: PodSandbox): void {
    this.#sandbox = sandbox;
    void sandbox.ended.then((exit) => this.end(exit));
  }

  /** Its start comes again: what it had made is gone. */
  rewind(): void {
    const { startKey: _, sandboxId: __, ...rest } = this.#record;
    this.#record = rest;
  }

  /** Nothing runs in it any more. The first time counts. */
  end(exit: Exit): void {
    if (this.#record.exit !== undefined) return;
    this.#record = { ...this.#record, exit: { status: exit.status, atMs: exit.at.getTime() } };
    this.#ended.resolve(exit);
    this.save().catch((err: unknown) => this.#log.error({ err }, "end of a pod not written down"));
  }

  /** @returns when its VM's end is durable */
  async stop(reason: string, now: Date): Promise<void> {
    const sandbox = this.#sandbox;
    if (sandbox === undefined) this.end({ status: 0, at: now });
    else await sandbox.stop(reason);
  }

  async forget(): Promise<void> {
    this.#forgotten = true;
    await this.#records.remove(this.#record);
  }
}

import { withDeadline } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { checkContainerId, type SandboxId } from "../../base/ids.ts";
import { race } from "../../base/retry.ts";
import { CreateSandboxRequest } from "../../gen/containerd/runtime/sandbox/v1/sandbox.ts";
import { Any } from "../../gen/google/protobuf/any.ts";
import { type AnnotationGate, type PodSandbox, podOverrides, withBase } from "../sandbox/index.ts";
import type { RuntimeOptions } from "../settings/index.ts";
import type { ShimDeps } from "../shim-service.ts";
import { type ApiPods, containerKey, type Pods, type SandboxHandlers, timestamp } from "../task/index.ts";
import { ApiSandbox } from "./api-sandbox.ts";
import { readPodConfig } from "./pod-config.ts";
import { writePodFiles } from "./pod-files.ts";
import { sandboxRuntimeOptions } from "./runtime-options.ts";
import type { SandboxRecord, SandboxRecords } from "./sandbox-record.ts";

export interface SandboxServiceDeps extends Pick<ShimDeps, "log"> {
  readonly pods: Pods;
  readonly records: SandboxRecords;
  /** As for the Task API. */
  readonly pid: () => number;
  readonly hostCgroup: "v1" | "v2";
  readonly now: () => Date;
  readonly runtimeOptions: RuntimeOptions;
  /** Where a runtime's file says nothing. */
  readonly gate: AnnotationGate;
}

const READY = "SANDBOX_READY";
const NOT_READY = "SANDBOX_NOTREADY";
/** containerd gives a pod's removal a minute: a VM that goes slowly goes on going. */
const SHUTDOWN_MS = 2_500;
const UNKNOWN_EXIT = 255;
const EMPTY = {};

/**
 * containerd's Sandbox API: the pod's VM is the sandbox, there is no sandbox container. Its containers come by the Task
 * API. Source: reference §1.9; containerd plugins/sandbox/controller.go (2.0 - 2.3)
 */
export class SandboxService implements SandboxHandlers, ApiPods {
  readonly #deps: SandboxServiceDeps;
  readonly #sandboxes = new Map<string, ApiSandbox>();

  constructor(deps: SandboxServiceDeps) {
    this.#deps = deps;
  }

  find(address: string, namespace: string, id: string): ApiSandbox | undefined {
    return this.#sandboxes.get(containerKey(address, namespace, id));
  }

  /** Finds everything that is wrong with the pod; its VM is asked for by StartSandbox. */
  readonly createSandbox: SandboxHandlers["createSandbox"] = async (request, { address, namespace, call }) => {
    const id = checkContainerId(request.sandboxId);
    const createKey = call.requestKey ?? "";
    const known = this.find(address, namespace, id);
    // It comes again because the daemon that did it died before it could say so.
    if (known !== undefined && createKey !== "" && known.record.createKey === createKey) return EMPTY;
    if (known !== undefined)
      throw new Fault("already_exists", `pod sandbox ${id} exists already; shut it down or choose another id`);
    if (!request.bundlePath.startsWith("/") || request.bundlePath.includes("\0"))
      throw new Fault(
        "invalid_argument",
        `bundle_path = ${JSON.stringify(request.bundlePath)}: an absolute path is expected`,
      );
    readPodConfig(request);
    const options = await sandboxRuntimeOptions({ address, namespace }, id, call);
    const record: SandboxRecord = {
      version: 1,
      ...{ address, namespace, id, createKey },
      bundle: request.bundlePath,
      pid: this.#deps.pid(),
      createdAtMs: this.#deps.now().getTime(),
      request: Buffer.from(CreateSandboxRequest.encode(request).finish()).toString("base64"),
      ...(options === undefined
        ? {}
        : { runtimeOptions: Buffer.from(Any.encode(options).finish()).toString("base64") }),
    };
    const sandbox = await this.#make(record);
    this.#deps.pods.checkHypervisor(sandbox.overrides.hypervisor);
    await sandbox.save();
    this.#sandboxes.set(containerKey(address, namespace, id), sandbox);
    return EMPTY;
  };

  readonly startSandbox: SandboxHandlers["startSandbox"] = async ({ sandboxId: id }, { address, namespace, call }) => {
    const api = this.#get(address, namespace, id);
    const { pods, log } = this.#deps;
    await api.start(call.requestKey, async () => {
      const { record, config, overrides, request } = api;
      const { bundle } = record;
      const dns = await writePodFiles(bundle, config);
      const sandbox = pods.add({
        ...{ address, namespace, id, bundle, kind: "api_sandbox" },
        ...{ netnsPath: request.netnsPath, pod: config.pod, hypervisor: overrides.hypervisor },
      });
      try {
        await api.attach(sandbox);
        const { hostname, sharedProcesses } = config;
        const size = withBase(config.limits, overrides);
        await sandbox.boot(
          { hostname, dns, size, overrides, shmBytes: undefined, holdsProcesses: sharedProcesses },
          call,
        );
      } catch (error) {
        log.error({ err: error, container: id, namespace }, "pod sandbox not started");
        void sandbox.stop("it could not be started").then(() => pods.settle(sandbox));
        throw error;
      }
      return sandbox;
    });
    return { pid: api.pid, createdAt: timestamp(new Date(api.record.createdAtMs)), spec: undefined };
  };

  readonly platform: SandboxHandlers["platform"] = async () => {
    const architecture = process.arch === "x64" ? "amd64" : process.arch;
    return { platform: { os: "linux", architecture, variant: "", osVersion: "", osFeatures: [] } };
  };

  /** Its containers are stopped before by containerd; what still runs is killed. */
  readonly stopSandbox: SandboxHandlers["stopSandbox"] = async ({ sandboxId: id, timeoutSecs }, caller) => {
    const api = this.#get(caller.address, caller.namespace, id);
    const patient = timeoutSecs === 0 ? caller.call : withDeadline(timeoutSecs * 1_000, caller.call);
    await race(this.#stop(api, "containerd asked to stop it"), patient);
    return EMPTY;
  };

  readonly waitSandbox: SandboxHandlers["waitSandbox"] = async ({ sandboxId: id }, { address, namespace, call }) => {
    const exit = await race(this.#get(address, namespace, id).ended, call);
    return { exitStatus: exit.status, exitedAt: timestamp(exit.at) };
  };

  /** containerd passes on a state only: "not found" would be an error to whoever lists pods. */
  readonly sandboxStatus: SandboxHandlers["sandboxStatus"] = async (request, { address, namespace }) => {
    const { sandboxId, verbose } = request;
    const api = this.find(address, namespace, sandboxId);
    const exit = api?.exit;
    const answer = {
      sandboxId,
      pid: api?.pid ?? 0,
      info: {},
      createdAt: undefined,
      exitedAt: undefined,
      extra: undefined,
    };
    if (api === undefined) return { ...answer, state: NOT_READY, exitedAt: timestamp(this.#deps.now()) };
    const { sandbox } = api;
    const info: Record<string, string> =
      verbose && sandbox !== undefined ? { kataRemote: JSON.stringify(sandbox.status()) } : {};
    return {
      ...answer,
      ...{ info, state: sandbox?.state === "running" ? READY : NOT_READY },
      createdAt: timestamp(new Date(api.record.createdAtMs)),
      exitedAt: exit === undefined ? undefined : timestamp(exit.at),
    };
  };

  readonly pingSandbox: SandboxHandlers["pingSandbox"] = async ({ sandboxId: id }, { address, namespace }) => {
    this.#running(address, namespace, id);
    return EMPTY;
  };

  readonly shutdownSandbox: SandboxHandlers["shutdownSandbox"] = async ({ sandboxId: id }, caller) => {
    const api = this.find(caller.address, caller.namespace, id);
    if (api === undefined) return EMPTY;
    const soon = withDeadline(SHUTDOWN_MS, caller.call);
    await race(this.#stop(api, "containerd shut it down"), soon).catch(() => undefined); // it goes on without us
    await this.#forget(api);
    return EMPTY;
  };

  readonly sandboxMetrics: SandboxHandlers["sandboxMetrics"] = async ({ sandboxId: id }, caller) => {
    const sandbox = this.#running(caller.address, caller.namespace, id);
    const { typeUrl, value } = await sandbox.stats(this.#deps.hostCgroup, caller.call);
    const data = { typeUrl, value: Buffer.from(value) };
    return { metrics: { timestamp: timestamp(this.#deps.now()), id, data } };
  };

  async cleanup(address: string, namespace: string, id: string): Promise<void> {
    const api = this.find(address, namespace, id);
    if (api === undefined) return;
    await this.#forget(api);
    await this.#stop(api, "containerd asked to clean it up");
  }

  /**
   * Goes on with the pods of an earlier daemon.
   * @param expected keys of calls that will come again
   */
  async restore(records: readonly SandboxRecord[], expected: ReadonlySet<string>): Promise<void> {
    const { pods, log } = this.#deps;
    for (const record of records) {
      let api: ApiSandbox;
      try {
        api = await this.#make(record);
      } catch (err) {
        log.error({ err, container: record.id }, "record of a pod is of no use any more, the pod is lost");
        await this.#deps.records.remove(record);
        continue;
      }
      this.#sandboxes.set(containerKey(record.address, record.namespace, record.id), api);
      const sandbox = record.sandboxId === undefined ? undefined : pods.get(record.sandboxId as SandboxId);
      if (sandbox !== undefined) api.resume(sandbox);
      else if (record.startKey !== undefined && expected.has(record.startKey)) api.rewind();
      else if (record.startKey !== undefined) api.end({ status: UNKNOWN_EXIT, at: this.#deps.now() });
    }
  }

  async #make(record: SandboxRecord): Promise<ApiSandbox> {
    const { runtimeOptions } = record;
    const options = runtimeOptions === undefined ? undefined : Any.decode(Buffer.from(runtimeOptions, "base64"));
    const { annotations } = readPodConfig(CreateSandboxRequest.decode(Buffer.from(record.request, "base64")));
    const runtime = await this.#deps.runtimeOptions.read(options);
    const overrides = { ...runtime, ...podOverrides(annotations, runtime.gate ?? this.#deps.gate) };
    return new ApiSandbox(record, overrides, this.#deps);
  }

  /** A VM that ended by itself is forgotten here as well. */
  async #stop(api: ApiSandbox, reason: string): Promise<void> {
    const { sandbox } = api;
    await api.stop(reason, this.#deps.now());
    if (sandbox !== undefined) await this.#deps.pods.settle(sandbox);
  }

  async #forget(api: ApiSandbox): Promise<void> {
    const { address, namespace, id } = api.record;
    if (this.#sandboxes.get(containerKey(address, namespace, id)) === api)
      this.#sandboxes.delete(containerKey(address, namespace, id));
    await api.forget();
  }

  /** @throws Fault not_found */
  #get(address: string, namespace: string, id: string): ApiSandbox {
    const api = this.find(address, namespace, id);
    if (api !== undefined) return api;
    throw new Fault("not_found", `there is no pod sandbox ${id} in namespace ${namespace}`, { container: id });
  }

  /** @throws Fault not_found | failed_precondition */
  #running(address: string, namespace: string, id: string): PodSandbox {
    const { sandbox } = this.#get(address, namespace, id);
    if (sandbox?.state === "running") return sandbox;
    throw new Fault("failed_precondition", `pod sandbox ${id} is ${sandbox?.state ?? "not started, or stopped"}`);
  }
}

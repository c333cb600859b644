import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { withDeadline } from "../../../src/base/call.ts";
import {
  ContainerConfig,
  ContainerState,
  type ContainerStatus,
  LinuxContainerSecurityContext,
  NamespaceMode,
  PodSandboxConfig,
  RuntimeServiceDefinition,
} from "../../../src/gen/cri/runtime/v1/api.ts";
import { createClient, type ServiceClient } from "../../../src/grpc/index.ts";

export interface PodOptions {
  readonly name: string;
  /** Runtime handler; "" is containerd's default. */
  readonly handler?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly hostNetwork?: boolean;
  readonly hostPid?: boolean;
  readonly hostIpc?: boolean;
  /** "POD": its containers see each other's processes. */
  readonly sharePid?: boolean;
  /** As kubelet says it in metadata; its directories are named by it. */
  readonly uid?: string;
  readonly sysctls?: Readonly<Record<string, string>>;
  /** Of the pod on the node, as kubelet makes it. */
  readonly cgroupParent?: string;
  /** What its resolv.conf says; the machine's own unless given. */
  readonly dns?: { readonly servers: readonly string[]; readonly searches: readonly string[] };
}

export interface ContainerOptions {
  readonly name: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly envs?: Readonly<Record<string, string>>;
  readonly mounts?: readonly {
    readonly containerPath: string;
    readonly hostPath: string;
    readonly readonly?: boolean;
  }[];
  readonly devices?: readonly string[];
  readonly memoryLimitBytes?: number;
  /** Anything else of the security context. */
  readonly security?: SecurityContext;
  readonly stdin?: boolean;
  readonly tty?: boolean;
  /** Counts the restarts of one container, as kubelet does. */
  readonly attempt?: number;
  readonly workingDir?: string;
}

type SecurityContext = Parameters<typeof LinuxContainerSecurityContext.fromPartial>[0];

/** What a kubelet does, over containerd's CRI socket. */
export class Cri {
  readonly #client: ServiceClient<typeof RuntimeServiceDefinition>;
  readonly #logFolder: string;
  readonly #configs = new Map<string, PodSandboxConfig>();

  constructor(address: string, logFolder: string) {
    this.#client = createClient(RuntimeServiceDefinition, { address: `unix://${address}` });
    this.#logFolder = logFolder;
    mkdirSync(logFolder, { recursive: true });
  }

  async runPod(options: PodOptions, timeoutMs = 180_000): Promise<string> {
    const config = podConfig(options, this.#logFolder);
    const { podSandboxId } = await this.#client.runPodSandbox(
      { config, runtimeHandler: options.handler ?? "kata-remote" },
      withDeadline(timeoutMs),
    );
    this.#configs.set(podSandboxId, config);
    return podSandboxId;
  }

  /** The CRI itself, for calls that have no method here. */
  get runtime(): ServiceClient<typeof RuntimeServiceDefinition> {
    return this.#client;
  }

  /** Creates and starts a container. */
  async startContainer(podSandboxId: string, options: ContainerOptions): Promise<string> {
    const sandboxConfig = this.#configs.get(podSandboxId);
    if (sandboxConfig === undefined) throw new Error(`pod ${podSandboxId} was not made by this client`);
    const { containerId } = await this.#client.createContainer(
      { podSandboxId, config: containerConfig(options, sandboxConfig), sandboxConfig },
      withDeadline(120_000),
    );
    await this.#client.startContainer({ containerId }, withDeadline(60_000));
    return containerId;
  }

  async execSync(
    containerId: string,
    cmd: readonly string[],
  ): Promise<{ readonly stdout: string; readonly stderr: string; readonly exitCode: number }> {
    const answer = await this.#client.execSync({ containerId, cmd: [...cmd], timeout: 60n }, withDeadline(90_000));
    return { stdout: answer.stdout.toString(), stderr: answer.stderr.toString(), exitCode: answer.exitCode };
  }

  /** Path of the log file that containerd writes for a container (CRI format). */
  logPath(name: string): string {
    return join(this.#logFolder, `${name}.log`);
  }

  /** Exit code once the container has ended, else undefined. */
  async exitCode(containerId: string): Promise<number | undefined> {
    const { status } = await this.#client.containerStatus({ containerId }, withDeadline(60_000));
    return status !== undefined && status.state === ContainerState.CONTAINER_EXITED ? status.exitCode : undefined;
  }

  async status(containerId: string): Promise<ContainerStatus> {
    const { status } = await this.#client.containerStatus({ containerId }, withDeadline(60_000));
    if (status === undefined) throw new Error(`container ${containerId} has no status`);
    return status;
  }

  async podAddress(podSandboxId: string): Promise<string> {
    return (await this.podAddresses(podSandboxId))[0] ?? "";
  }

  /** All of them, the first family's first. */
  async podAddresses(podSandboxId: string): Promise<readonly string[]> {
    const { status } = await this.#client.podSandboxStatus({ podSandboxId }, withDeadline(60_000));
    const { ip = "", additionalIps = [] } = status?.network ?? {};
    return [ip, ...additionalIps.map((more) => more.ip)].filter((address) => address !== "");
  }

  async containerMemoryBytes(containerId: string): Promise<number> {
    const { stats } = await this.#client.containerStats({ containerId }, withDeadline(60_000));
    return Number(stats?.memory?.workingSetBytes?.value ?? 0n);
  }

  async removeContainer(containerId: string): Promise<void> {
    await this.#client.removeContainer({ containerId }, withDeadline(60_000));
  }

  async stopContainer(containerId: string, timeoutSeconds: number): Promise<void> {
    await this.#client.stopContainer({ containerId, timeout: BigInt(timeoutSeconds) }, withDeadline(60_000));
  }

  async removePod(podSandboxId: string): Promise<void> {
    await this.#client.stopPodSandbox({ podSandboxId }, withDeadline(90_000));
    await this.#client.removePodSandbox({ podSandboxId }, withDeadline(60_000));
    this.#configs.delete(podSandboxId);
  }

  /** Ends every pod that this client started and forgets the connection. */
  async close(): Promise<void> {
    for (const id of [...this.#configs.keys()]) await this.removePod(id);
    this.#client.close();
  }
}

function podConfig(options: PodOptions, logDirectory: string): PodSandboxConfig {
  return PodSandboxConfig.fromPartial({
    metadata: { name: options.name, namespace: "test", uid: options.uid ?? `uid-${options.name}`, attempt: 0 },
    hostname: options.name,
    logDirectory,
    annotations: { ...options.annotations },
    ...(options.dns === undefined
      ? {}
      : { dnsConfig: { servers: [...options.dns.servers], searches: [...options.dns.searches] } }),
    linux: {
      cgroupParent: options.cgroupParent ?? "",
      sysctls: { ...options.sysctls },
      securityContext: {
        namespaceOptions: {
          network: options.hostNetwork ? NamespaceMode.NODE : NamespaceMode.POD,
          pid: options.hostPid ? NamespaceMode.NODE : pidMode(options.sharePid),
          ipc: options.hostIpc ? NamespaceMode.NODE : NamespaceMode.POD,
        },
      },
    },
  });
}

function pidMode(shared = false): NamespaceMode {
  return shared ? NamespaceMode.POD : NamespaceMode.CONTAINER;
}

function containerConfig(options: ContainerOptions, pod: PodSandboxConfig): ContainerConfig {
  const pid = pod.linux?.securityContext?.namespaceOptions?.pid ?? NamespaceMode.CONTAINER;
  return ContainerConfig.fromPartial({
    metadata: { name: options.name, attempt: options.attempt ?? 0 },
    image: { image: options.image },
    command: [...options.command],
    envs: Object.entries(options.envs ?? {}).map(([key, value]) => ({ key, value: Buffer.from(value) })),
    mounts: (options.mounts ?? []).map((m) => ({ ...m, readonly: m.readonly ?? false })),
    devices: (options.devices ?? []).map((path) => ({ hostPath: path, containerPath: path, permissions: "rwm" })),
    logPath: `${options.name}.log`,
    workingDir: options.workingDir ?? "",
    stdin: options.stdin ?? false,
    tty: options.tty ?? false,
    linux: {
      resources: { memoryLimitInBytes: BigInt(options.memoryLimitBytes ?? 0) },
      securityContext: LinuxContainerSecurityContext.fromPartial({
        ...options.security,
        namespaceOptions: { network: NamespaceMode.POD, pid, ipc: NamespaceMode.POD },
      }),
    },
  });
}

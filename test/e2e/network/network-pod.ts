import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Cri } from "../harness/cri.ts";
import { BUSYBOX } from "../harness/images.ts";
import { until } from "../harness/processes.ts";
import { World } from "../harness/world.ts";
import { Fabric, OUTSIDE, type Worker } from "./fabric.ts";
import { packPeer, peerInPod } from "./peer-program.ts";
import type { TunnelKind } from "./tunnel-kinds.ts";

/** What each pod of these tests serves. */
export const PORTS = { http: 8080, echo: 7007, stream: 7008, udp: 7009, localHttp: 8081 } as const;
/** Three emulated guests may start at once on a machine that has other work. */
const START_MS = 400_000;
export const PAGE = "from inside of the VM\n".repeat(20_000);

/** Without what busybox puts around an IPv6 address, and around an IPv4 one at a socket for both. */
const WHO = `#!/bin/sh
from=\${REMOTE_ADDR#[}
from=\${from%]}
printf "\\r\\n$HOSTNAME sees \${from#::ffff:}\\n"
`;

/** A worker at work: containerd, node daemon and adaptor in the worker's namespace. */
export class WorkerWorld implements AsyncDisposable {
  readonly worker: Worker;
  readonly world: World;
  readonly cri: Cri;
  readonly #kind: TunnelKind;
  readonly #mounts: readonly { readonly containerPath: string; readonly hostPath: string }[];

  private constructor(
    worker: Worker,
    world: World,
    kind: TunnelKind,
    mounts: readonly { readonly containerPath: string; readonly hostPath: string }[],
  ) {
    this.worker = worker;
    this.world = world;
    this.#kind = kind;
    this.cri = new Cri(world.containerd.address, join(world.folder, "logs"));
    this.#mounts = mounts;
  }

  static async start(worker: Worker, kind: TunnelKind): Promise<WorkerWorld> {
    const { podNetwork } = kind;
    const cni = (folder: string): object => Fabric.cni(worker, folder);
    const world = await World.start({ network: "tap", netns: worker.netns, cni, podNetwork });
    const page = join(world.folder, "page");
    mkdirSync(join(page, "cgi-bin"), { recursive: true });
    writeFileSync(join(page, "index.html"), PAGE);
    const who = join(page, "cgi-bin", "who");
    writeFileSync(who, WHO);
    chmodSync(who, 0o755);
    const peer = await packPeer(join(world.folder, "peer"));
    return new WorkerWorld(worker, world, kind, [{ containerPath: "/page", hostPath: page }, peer]);
  }

  /** A pod that serves PORTS. @param streamMib what whoever connects to PORTS.stream gets */
  async pod(name: string, streamMib: number): Promise<NetworkPod> {
    const dns = { servers: [OUTSIDE.address], searches: ["apps.svc.cluster.test", "svc.cluster.test"] };
    const id = await this.cri.runPod({ name, dns }, START_MS);
    const [address = "", address6 = ""] = await this.cri.podAddresses(id);
    const serve = [
      `export HOSTNAME=${name}`,
      `httpd -p ${PORTS.http} -h /page`,
      `httpd -p 127.0.0.1:${PORTS.localHttp} -h /page`,
      `nc -ll -p ${PORTS.echo} -e cat &`,
      `${peerInPod("tcp-send", String(PORTS.stream), String(streamMib)).join(" ")} &`,
      `exec ${peerInPod("udp-echo", String(PORTS.udp)).join(" ")}`,
    ];
    const container = await this.cri.startContainer(id, {
      name: `${name}-net`,
      image: BUSYBOX,
      command: ["sh", "-c", serve.join("\n")],
      mounts: this.#mounts.map((m) => ({ ...m, readonly: true })),
    });
    const pod = new NetworkPod({ name, id, container, address, address6, cri: this.cri });
    const said = (): string => readFileSync(this.cri.logPath(`${name}-net`), "utf8");
    const serves = async (): Promise<boolean> => {
      const ended = await this.cri.exitCode(container);
      if (ended !== undefined) throw new Error(`${name} ended with ${ended}: ${said()}`);
      // An exec fails while its container ends: the next look says so.
      const asked = await pod.try("wget", "-q", "-O", "-", who("127.0.0.1")).catch(() => undefined);
      return asked?.exitCode === 0;
    };
    await until(`${name} to serve`, 120_000, serves, said);
    return pod;
  }

  /** What tells the tunnels of this worker's pods apart. */
  identities(): readonly string[] {
    return this.#kind.identities(join(this.world.folder, "state", "node"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.cri.close();
      await this.world.untilNoVm();
    } finally {
      await this.world.close();
    }
  }
}

/** Says who asked whom. */
export function who(host: string, port: number = PORTS.http): string {
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}/cgi-bin/who`;
}

export class NetworkPod {
  readonly name: string;
  readonly id: string;
  readonly address: string;
  readonly address6: string;
  readonly #container: string;
  readonly #cri: Cri;

  constructor(known: {
    readonly name: string;
    readonly id: string;
    readonly container: string;
    readonly address: string;
    readonly address6: string;
    readonly cri: Cri;
  }) {
    this.name = known.name;
    this.id = known.id;
    this.address = known.address;
    this.address6 = known.address6;
    this.#container = known.container;
    this.#cri = known.cri;
  }

  try(
    ...command: readonly string[]
  ): Promise<{ readonly stdout: string; readonly stderr: string; readonly exitCode: number }> {
    return this.#cri.execSync(this.#container, command);
  }

  /** A program that must succeed. @returns what it printed */
  async run(...command: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.try(...command).catch((cause: unknown) => {
      throw new Error(`${command.join(" ")} in ${this.name}: ${String(cause)}`, { cause });
    });
    if (exitCode !== 0)
      throw new Error(`${command.join(" ")} in ${this.name} ended with ${exitCode}: ${stderr}${stdout}`);
    return stdout;
  }

  fetch(url: string): Promise<string> {
    return this.run("wget", "-q", "-O", "-", url);
  }
}

import { parse } from "smol-toml";
import { type Static, Type } from "typebox";
import { parseConfig } from "../base/config.ts";
import { Fault } from "../base/fault.ts";
import { readIfThere } from "../base/files.ts";
import { type Layers, layered } from "../base/overlay.ts";
import { networkSettings } from "../shim/hypervisor/index.ts";
import { ShimConfig } from "../shim/index.ts";
import { StockConfig } from "./door/index.ts";
import { PodNetworkConfig } from "./podnetwork/index.ts";

/** Where the node daemon looks when it is told no other file. */
export const NODE_CONFIG_PATH = "/etc/kata-remote/node.toml";

const closed = { additionalProperties: false } as const;

export const RemoteConfig = Type.Object(
  {
    address: Type.String({
      pattern: "^(unix:///.+|[^/]+:[0-9]+)$",
      description: "The adaptor: unix:///path or host:port (which needs tls). Default: adaptor.sock in runDir",
    }),
    tls: Type.Optional(
      Type.Object(
        {
          caFile: Type.String({ minLength: 1, description: "CA of the adaptor, PEM" }),
          certificateFile: Type.String({ minLength: 1, description: "This node's certificate, PEM" }),
          keyFile: Type.String({ minLength: 1, description: "Its key, PEM" }),
        },
        closed,
      ),
    ),
    joinFile: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          "Instead of address and tls: what `kata-remote adaptor token` wrote, for a node of another machine",
      }),
    ),
    patienceMs: Type.Integer({
      minimum: 1_000,
      default: 60_000,
      description: "How long short requests keep trying while the adaptor is away, ms",
    }),
  },
  closed,
);
export type RemoteConfig = Static<typeof RemoteConfig>;

export const QemuConfig = Type.Object(
  {
    imageDir: Type.String({
      minLength: 1,
      default: "/var/lib/kata-remote/image",
      description: "What `kata-remote image build` made",
    }),
    defaultVcpus: Type.Integer({
      minimum: 1,
      default: 2,
      description: "Of a pod that asks for none. Two make the boot faster under emulation",
    }),
    defaultMemoryMiB: Type.Integer({
      minimum: 64,
      default: 512,
      description: "Of a pod that asks for none, without the guest's own",
    }),
    guestOverheadMiB: Type.Integer({
      minimum: 0,
      default: 256,
      description: "Added for the guest's kernel, agent and page cache",
    }),
    acceleration: Type.Union([Type.Literal("auto"), Type.Literal("kvm"), Type.Literal("tcg")], { default: "auto" }),
    ...networkSettings({ bridge: "kr-qemu0", subnet: "10.213.80.0/20" }),
    qemuPath: Type.String({ minLength: 1, default: "qemu-system-x86_64" }),
  },
  closed,
);
export type QemuConfig = Static<typeof QemuConfig>;

/** The node daemon's configuration. */
export const NodeConfig = Type.Object(
  {
    runDir: Type.String({
      minLength: 1,
      default: "/run/kata-remote",
      description: "Sockets and state of running pods; lost at reboot",
    }),
    stateDir: Type.String({
      minLength: 1,
      default: "/var/lib/kata-remote/node",
      description: "Node id and keys; kept",
    }),
    logLevel: Type.Union(
      ["trace", "debug", "info", "warn", "error"].map((level) => Type.Literal(level)),
      { default: "info" },
    ),
    idleExitMs: Type.Integer({
      minimum: 1_000,
      default: 300_000,
      description: "Without a pod for this long the daemon ends, unless a supervisor holds it, ms",
    }),
    keepAliveMs: Type.Integer({
      minimum: 100,
      default: 5_000,
      description: "Between looks whether silent guests live, ms",
    }),
    keepAliveDeadlineMs: Type.Integer({
      minimum: 100,
      default: 15_000,
      description: "How long a guest may take to answer that before its connection is made anew, ms",
    }),
    orphanAfterMs: Type.Integer({
      minimum: 1_000,
      default: 900_000,
      description: "Pods whose node daemon does not come back within this time are given up by their relay, ms",
    }),
    shim: Type.Object(ShimConfig.properties, { ...closed, default: {} }),
    podNetwork: Type.Object(PodNetworkConfig.properties, { ...closed, default: {} }),
    remote: Type.Optional(Type.Partial(RemoteConfig, closed)),
    qemu: Type.Optional(QemuConfig),
    stock: Type.Optional(StockConfig),
  },
  closed,
);
export type NodeConfig = Static<typeof NodeConfig>;

/**
 * Reads the file; a default file that is missing is an empty one.
 * @throws Fault invalid_argument naming file and key; not_found when a file was named and is not there
 */
export async function loadNodeConfig(path?: string, layers: Layers = {}): Promise<NodeConfig> {
  const origin = path ?? NODE_CONFIG_PATH;
  const text = await readIfThere(origin);
  if (text === undefined && path !== undefined) throw new Fault("not_found", `${path} does not exist`);
  return parseConfig(NodeConfig, layered(parseToml(text ?? "", origin), layers), origin);
}

function parseToml(text: string, origin: string): unknown {
  try {
    return parse(text);
  } catch (cause) {
    throw new Fault("invalid_argument", `${origin} is not TOML: ${(cause as Error).message}`, { origin }, { cause });
  }
}

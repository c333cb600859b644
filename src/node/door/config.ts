import { type Static, Type } from "typebox";

const closed = { additionalProperties: false } as const;

/** `[stock]` of the node's configuration: present, stock shims are served. */
export const StockConfig = Type.Object(
  {
    socket: Type.String({
      pattern: "^/[^:]+$",
      default: "/run/peerpod/hypervisor.sock",
      description: "remote_hypervisor_socket of the shims (0600)",
    }),
    podsDir: Type.String({
      pattern: "^/[^:]+$",
      maxLength: 40,
      default: "/run/peerpod/pods",
      description: "Agent sockets are made below it, <sandbox id>/agent.ttrpc",
    }),
    hypervisor: Type.Union([Type.Literal("remote"), Type.Literal("qemu")], {
      default: "remote",
      description: "Backend of stock shims' pods",
    }),
    guest: Type.Union([Type.Literal("stock"), Type.Literal("reference")], {
      default: "stock",
      description: "Image of their VMs: stock (agent-protocol-forwarder, process-user-data) or ours",
    }),
    image: Type.Optional(
      Type.String({ minLength: 1, description: "Of pods that name none; absent: the provider's default" }),
    ),
    forwarderPort: Type.Integer({
      minimum: 1,
      maximum: 65_535,
      default: 15_150,
      description: "Of the stock forwarder",
    }),
    startVmTimeoutMs: Type.Integer({ minimum: 1_000, default: 600_000, description: "Until an address is known, ms" }),
    connectTimeoutMs: Type.Integer({
      minimum: 1_000,
      default: 300_000,
      description: "From a known address to an agent that answers, ms: boot of the guest",
    }),
    orphanMs: Type.Integer({
      minimum: 10_000,
      default: 300_000,
      description: "A VM to which no shim was connected for this long is stopped: its shim is dead, ms",
    }),
    initdata: Type.Optional(
      Type.String({ minLength: 1, description: "base64 of gzip of TOML, for pods without their own" }),
    ),
    scratchSpace: Type.Boolean({ default: false, description: "The image encrypts its scratch partition" }),
    externalNetworkViaVm: Type.Boolean({
      default: false,
      description: "The VM's second interface becomes the pod's default route; the provider must give it one",
    }),
    podSubnets: Type.Array(Type.String({ pattern: "^[0-9.]+/[0-9]+$" }), {
      default: [],
      description: "Stay on the tunnel when externalNetworkViaVm is set",
    }),
    hostInterface: Type.Optional(
      Type.String({
        pattern: "^[^\\s/:]{1,15}$",
        description: "The worker's end of tunnels; absent: the default route's",
      }),
    ),
    directVolumesDir: Type.String({
      pattern: "^/.+",
      default: "/run/kata-containers/shared/direct-volumes",
      description: "Where CSI drivers describe cloud disks",
    }),
    tls: Type.Object(
      {
        caFile: Type.Optional(
          Type.String({ minLength: 1, description: "The operator's CA, PEM: the image has its own certificates then" }),
        ),
        certificateFile: Type.Optional(Type.String({ minLength: 1, description: "This node's certificate, PEM" })),
        keyFile: Type.Optional(Type.String({ minLength: 1, description: "Its key, PEM" })),
        minVersion: Type.Union([Type.Literal("VersionTLS12"), Type.Literal("VersionTLS13")], {
          default: "VersionTLS12",
        }),
        cipherSuites: Type.Array(Type.String({ minLength: 1 }), {
          default: [],
          description: "IANA names, for TLS 1.2; empty: the peers' own",
        }),
      },
      { ...closed, default: {} },
    ),
  },
  closed,
);
export type StockConfig = Static<typeof StockConfig>;

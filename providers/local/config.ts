import { type Static, Type } from "typebox";

/** Configuration of provider local, `[providers.local]`. */
export const LocalConfig = Type.Object(
  {
    stateDir: Type.String({
      minLength: 1,
      default: "/var/lib/kata-remote/local",
      description: "One directory per VM. Keep it short: unix sockets are made in it",
    }),
    imageDir: Type.String({
      minLength: 1,
      default: "/var/lib/kata-remote/image",
      description: "Pod VM image, as kata-remote image build makes it",
    }),
    acceleration: Type.Union([Type.Literal("auto"), Type.Literal("kvm"), Type.Literal("tcg")], {
      default: "auto",
      description: "auto takes KVM where a VM really boots with it, else emulation",
    }),
    vcpus: Type.Integer({
      minimum: 1,
      default: 2,
      description: "Of a VM that asks for none. Two make the boot faster under emulation",
    }),
    network: Type.Union([Type.Literal("auto"), Type.Literal("tap"), Type.Literal("user")], {
      default: "user",
      description:
        "tap: each VM has an address on a bridge of this host, which the pod network needs. user: QEMU's own network. auto: tap where it works",
    }),
    bridge: Type.String({
      pattern: "^[A-Za-z0-9_.-]{1,15}$",
      default: "kr-local0",
      description: "Made with the first VM, removed with the last one; no other stateDir may use it",
    }),
    subnet: Type.String({
      minLength: 9,
      default: "10.213.64.0/20",
      description: "IPv4 network of the bridge; the host has its first address",
    }),
    outbound: Type.Boolean({
      default: false,
      description:
        "Lets VMs open connections. user: through this host, whose loopback services they then reach too, at 10.0.2.2. tap: the host becomes their router; forwarding and NAT are yours",
    }),
    qemu: Type.String({ minLength: 1, default: "qemu-system-x86_64", description: "Program, by name or path" }),
    cacheDir: Type.String({
      minLength: 1,
      default: "/run/kata-remote",
      description: "The verdict of the KVM probe is kept here until the next boot",
    }),
  },
  { additionalProperties: false },
);
export type LocalConfig = Static<typeof LocalConfig>;

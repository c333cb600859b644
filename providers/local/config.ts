import { type Static, Type } from "typebox";
import { networkSettings } from "../../src/vmm/settings/index.ts";

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
    ...networkSettings({ bridge: "kr-local0", subnet: "10.213.64.0/20" }),
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

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { WorldOptions } from "../harness/world.ts";

/** One way of carrying a pod's network into its VM, as `podNetwork.tunnel` names it. */
export interface TunnelKind {
  readonly name: "vxlan" | "wireguard";
  readonly podNetwork: NonNullable<WorldOptions["podNetwork"]>;
  /** Bytes that it takes from the underlay's MTU, over IPv4; WireGuard by a process takes 15 more than the kernel's. */
  readonly overheads: readonly number[];
  /** What the node daemon keeps of its pods' tunnels in its state directory: must differ between pods, and stay. */
  readonly identities: (stateDir: string) => readonly string[];
}

export const VXLAN: TunnelKind = {
  ...{ name: "vxlan", podNetwork: { tunnel: "vxlan", bypassConntrack: true } },
  ...{ overheads: [50], identities: numbers },
};

export const WIREGUARD: TunnelKind = {
  ...{ name: "wireguard", podNetwork: { tunnel: "wireguard" } },
  ...{ overheads: [110, 125], identities: records },
};

function numbers(stateDir: string): readonly string[] {
  const text = readFileSync(join(stateDir, "vnis.json"), "utf8");
  const { taken } = JSON.parse(text) as { readonly taken: Readonly<Record<string, readonly number[]>> };
  return Object.values(taken).flat().map(String);
}

function records(stateDir: string): readonly string[] {
  const dir = join(stateDir, "wireguard");
  return readdirSync(dir).map((name) => `${name}: ${readFileSync(join(dir, name), "utf8")}`);
}

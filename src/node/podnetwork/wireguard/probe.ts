import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { Netlink } from "../netlink/index.ts";
import type { NetworkCommands } from "../network-commands.ts";

/** Whose WireGuard a host uses. */
export type WireguardKind = "kernel" | "wireguard-go";

/** Debian's package of the same name. */
export const WIREGUARD_GO = "wireguard-go";

/**
 * The kernel's where the host has it, else the userspace implementation. Tried in a namespace that is gone afterwards.
 * @throws Fault failed_precondition with the remedy when there is neither
 */
export async function probeWireguard(commands: NetworkCommands, call: Call): Promise<WireguardKind> {
  const trial = ["--net", "ip", "link", "add", "name", "t0", "type", "wireguard"];
  const refused = await commands.host("unshare", trial, call).then(
    () => undefined,
    (e: unknown) => Fault.from(e),
  );
  // The kernel is told keys in its own language, for which there is no program on a bare host.
  if (refused === undefined && (await Netlink.load()) !== undefined) return "kernel";
  const installed = await commands.host(WIREGUARD_GO, ["--version"], call).then(
    () => true,
    () => false, // said below, with the remedy
  );
  if (installed) return "wireguard-go";
  const why = refused === undefined ? "koffi is not installed, so that the kernel's cannot be used" : refused.message;
  const message = `this host has no WireGuard (${why}): load its kernel's module wireguard, or apt-get install wireguard-go`;
  throw new Fault("failed_precondition", message);
}

import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { NetworkCommands } from "./network-commands.ts";
import { type IpLink, TUNNEL_NAME, TUNNEL_PREFIX } from "./read-netns.ts";

/** One interface of a pod and the tunnel behind it. */
export interface TunnelLink {
  readonly podInterface: string;
  readonly mtu: number;
  readonly vni: number;
}

export interface TunnelEnds {
  readonly local: string;
  readonly remote: string;
  readonly port: number;
  /** The device's socket is in the pod's namespace, where its packets go through another tunnel; else in the host's. */
  readonly inPod?: boolean;
}

interface Filter {
  readonly pref?: number;
  readonly options?: { readonly actions?: readonly { readonly kind?: string; readonly to_dev?: string }[] };
}

/** Priority of our filters; a CNI's own, if any, come before. */
export const PREF = 4711;

/** The number is in use by a device on this host that is not this pod's. */
export class VniInUse extends Error {}

/**
 * Makes each tunnel's device in the pod's namespace, with its socket in the host's, and joins it to the interface in both
 * directions. It dies with the namespace. What is there already and right is left alone.
 * @throws VniInUse; Fault failed_precondition with the remedy
 */
export async function ensureLinks(
  commands: NetworkCommands,
  netnsPath: string,
  links: readonly TunnelLink[],
  ends: TunnelEnds,
  call: Call,
): Promise<void> {
  const kept = new Set<string>();
  for (const device of await tunnelDevices(commands, netnsPath, call)) {
    const link = links[Number(device.ifname.slice(TUNNEL_PREFIX.length))];
    if (link !== undefined && isRight(device, link, ends)) kept.add(device.ifname);
    else await commands.pod(netnsPath, "ip", ["link", "delete", device.ifname], call);
  }
  for (const [index, link] of links.entries()) {
    const device = `${TUNNEL_PREFIX}${index}`;
    if (!kept.has(device)) await addDevice(commands, netnsPath, device, link, ends, call);
    await redirect(commands, netnsPath, link.podInterface, device, call);
    await redirect(commands, netnsPath, device, link.podInterface, call);
    await up(commands, netnsPath, device, ends.port, call);
  }
}

/** Removes tunnels and redirections. @throws Fault not_found when the namespace is gone */
export async function removeLinks(commands: NetworkCommands, netnsPath: string, call: Call): Promise<void> {
  const qdiscs = await commands.podJson<{ readonly kind: string; readonly dev: string }>(
    netnsPath,
    "tc",
    ["-json", "qdisc", "show"],
    call,
  );
  for (const { dev } of qdiscs.filter((q) => q.kind === "ingress" && !TUNNEL_NAME.test(q.dev))) {
    const filters = await filtersOf(commands, netnsPath, dev, call);
    if (!filters.some(isOurs)) continue;
    await commands.pod(netnsPath, "tc", ["filter", "delete", "dev", dev, "ingress", "pref", String(PREF)], call);
    if (filters.every(isOurs)) await commands.pod(netnsPath, "tc", ["qdisc", "delete", "dev", dev, "ingress"], call);
  }
  for (const { ifname } of await tunnelDevices(commands, netnsPath, call))
    await commands.pod(netnsPath, "ip", ["link", "delete", ifname], call);
}

/** Whether no other device of this host has one of these numbers at this port: the kernel is asked by making one. */
export async function areFree(
  commands: NetworkCommands,
  netnsPath: string,
  vnis: readonly number[],
  port: number,
  call: Call,
): Promise<boolean> {
  const device = `${TUNNEL_PREFIX}0`;
  const netns = await commands.reachable(netnsPath);
  for (const vni of vnis) {
    const kind = ["type", "vxlan", "id", String(vni), "dstport", String(port), "nolearning"];
    try {
      await commands.host("ip", ["link", "add", "name", device, "netns", netns, ...kind], call);
    } catch (e) {
      if (/already exists|File exists/.test(Fault.from(e).message)) return false;
      throw e;
    }
    await commands.pod(netnsPath, "ip", ["link", "delete", device], call);
  }
  return true;
}

async function tunnelDevices(commands: NetworkCommands, netnsPath: string, call: Call): Promise<readonly IpLink[]> {
  const args = ["-json", "-d", "link", "show", "type", "vxlan"];
  const devices = await commands.podJson<IpLink>(netnsPath, "ip", args, call);
  return devices.filter((d) => TUNNEL_NAME.test(d.ifname ?? ""));
}

function isRight(device: IpLink, link: TunnelLink, ends: TunnelEnds): boolean {
  const data = device.linkinfo?.info_data;
  return (
    data?.id === link.vni &&
    data.port === ends.port &&
    (data.remote ?? data.remote6) === ends.remote &&
    (data.local ?? data.local6) === ends.local &&
    device.mtu === link.mtu
  );
}

async function addDevice(
  commands: NetworkCommands,
  netnsPath: string,
  name: string,
  link: TunnelLink,
  { local, remote, port, inPod = false }: TunnelEnds,
  call: Call,
): Promise<void> {
  const args = [
    ...["link", "add", "name", name, ...(inPod ? [] : ["netns", await commands.reachable(netnsPath)])],
    ...["mtu", String(link.mtu)],
    ...[
      "type",
      "vxlan",
      "id",
      String(link.vni),
      "local",
      local,
      "remote",
      remote,
      "dstport",
      String(port),
      "nolearning",
    ],
  ];
  const added = inPod ? commands.pod(netnsPath, "ip", args, call) : commands.host("ip", args, call);
  await added.catch((thrown: unknown) => {
    const cause = Fault.from(thrown);
    if (/already exists|File exists/.test(cause.message)) throw new VniInUse();
    if (!/Unknown device type|Operation not supported/.test(cause.message)) throw cause;
    const message = "this host's kernel has no VXLAN: load its module vxlan";
    throw new Fault("failed_precondition", message, {}, { cause });
  });
}

async function up(
  commands: NetworkCommands,
  netnsPath: string,
  device: string,
  port: number,
  call: Call,
): Promise<void> {
  await commands
    .pod(netnsPath, "ip", ["link", "set", device, "addrgenmode", "none", "up"], call)
    .catch((thrown: unknown) => {
      const cause = Fault.from(thrown);
      if (!/Address already in use/.test(cause.message)) throw cause;
      const message = `UDP port ${port} is used by another program of this host, so that no tunnel can use it: set podNetwork.port`;
      throw new Fault("failed_precondition", message, {}, { cause });
    });
}

/** All that comes into `from` goes out of `to`. */
async function redirect(
  commands: NetworkCommands,
  netnsPath: string,
  from: string,
  to: string,
  call: Call,
): Promise<void> {
  const tc = (args: readonly string[]): Promise<string> =>
    commands.pod(netnsPath, "tc", args, call).catch((thrown: unknown) => {
      const cause = Fault.from(thrown);
      if (!/not found|unknown/i.test(cause.message) || cause.code === "not_found") throw cause;
      const message = `this host's kernel cannot redirect ${from} to ${to}: load its modules sch_ingress, cls_u32 and act_mirred`;
      throw new Fault("failed_precondition", message, {}, { cause });
    });
  await tc(["qdisc", "replace", "dev", from, "ingress"]);
  const ours = (await filtersOf(commands, netnsPath, from, call)).filter((f) => f.pref === PREF);
  if (ours.some((f) => f.options?.actions?.some((a) => a.kind === "mirred" && a.to_dev === to))) return;
  if (ours.length > 0) await tc(["filter", "delete", "dev", from, "ingress", "pref", String(PREF)]);
  // Not matchall, which small kernels lack.
  const every = ["protocol", "all", "pref", String(PREF), "u32", "match", "u32", "0", "0"];
  await tc(["filter", "add", "dev", from, "ingress", ...every, "action", "mirred", "egress", "redirect", "dev", to]);
}

async function filtersOf(
  commands: NetworkCommands,
  netnsPath: string,
  device: string,
  call: Call,
): Promise<readonly Filter[]> {
  return await commands.podJson<Filter>(netnsPath, "tc", ["-json", "filter", "show", "dev", device, "ingress"], call);
}

function isOurs(filter: Filter): boolean {
  return filter.pref === PREF;
}

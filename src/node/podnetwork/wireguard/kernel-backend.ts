import type { Call } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import {
  CTRL_FAMILY,
  familyRequest,
  getDeviceRequest,
  readDevice,
  readFamilyId,
  setDeviceRequest,
  type WireguardKey,
  type WireguardPeer,
} from "../../../podnetwork/index.ts";
import { Netlink, NetlinkError, type NetlinkSocket } from "../netlink/index.ts";
import type { NetworkCommands } from "../network-commands.ts";
import { WIREGUARD_LINK } from "../read-netns.ts";
import type { LinkPlace, WireguardBackend } from "./backend.ts";
import { unlessGone } from "./userspace-backend.ts";

type Commands = Pick<NetworkCommands, "host" | "pod" | "reachable">;

/** Opens generic netlink in a namespace. */
export type OpenGeneric = (netns: string) => Promise<Pick<NetlinkSocket, "get" | "change" | "dump"> & Disposable>;

/** The host kernel's WireGuard: a link is made in the pod's namespace with its socket in the host's, and dies with it. */
export class KernelBackend implements WireguardBackend {
  readonly kind = "kernel";
  readonly reserveBytes = 0;
  readonly #commands: Commands;
  readonly #open: OpenGeneric;

  constructor(deps: { readonly commands: Commands; readonly open?: OpenGeneric }) {
    this.#commands = deps.commands;
    this.#open = deps.open ?? openGeneric;
  }

  async ensure({ netnsPath }: LinkPlace, privateKey: WireguardKey, call: Call): Promise<void> {
    const commands = this.#commands;
    const netns = await commands.reachable(netnsPath);
    using socket = await this.#open(netns);
    const family = familyId(socket);
    if (keyOf(socket, family) === privateKey) return;
    await commands.pod(netnsPath, "ip", ["link", "delete", WIREGUARD_LINK], call).catch(unlessGone);
    await commands.host("ip", ["link", "add", "name", WIREGUARD_LINK, "netns", netns, "type", "wireguard"], call);
    socket.change(family, 0, setDeviceRequest({ ifname: WIREGUARD_LINK, privateKey, peers: [] }));
  }

  async setPeer({ netnsPath }: LinkPlace, peer: WireguardPeer): Promise<void> {
    using socket = await this.#open(await this.#commands.reachable(netnsPath));
    socket.change(familyId(socket), 0, setDeviceRequest({ ifname: WIREGUARD_LINK, peers: [peer] }));
  }

  async isAlive(): Promise<boolean> {
    return true; // it has no process
  }

  async remove({ netnsPath }: LinkPlace, call: Call): Promise<void> {
    await this.#commands.pod(netnsPath, "ip", ["link", "delete", WIREGUARD_LINK], call).catch(unlessGone);
  }
}

async function openGeneric(netns: string): Promise<NetlinkSocket> {
  const netlink = await Netlink.load();
  if (netlink === undefined) throw new Fault("failed_precondition", "koffi is not installed: run npm install");
  return netlink.open(netns, "generic");
}

function familyId(socket: Pick<NetlinkSocket, "get">): number {
  const id = readFamilyId(socket.get(CTRL_FAMILY, familyRequest()));
  if (id === undefined) throw new Fault("failed_precondition", "this host's kernel does not say how WireGuard is set");
  return id;
}

function keyOf(socket: Pick<NetlinkSocket, "dump">, family: number): WireguardKey | undefined {
  try {
    const [device] = socket.dump(family, getDeviceRequest(WIREGUARD_LINK));
    return device === undefined ? undefined : readDevice(device).privateKey;
  } catch (e) {
    if (e instanceof NetlinkError && e.code === "ENODEV") return undefined;
    throw e;
  }
}

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { type Call, withDeadline } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { sleep } from "../../../base/retry.ts";
import type { WireguardKey, WireguardPeer } from "../../../podnetwork/index.ts";
import type { NetworkCommands } from "../network-commands.ts";
import { WIREGUARD_LINK } from "../read-netns.ts";
import type { LinkPlace, WireguardBackend } from "./backend.ts";
import { WIREGUARD_GO } from "./probe.ts";
import { askUapi, checkSet, GET_REQUEST, readGet, setRequest } from "./uapi.ts";

export interface UserspaceBackendDeps {
  readonly commands: NetworkCommands;
  /** Namespace that counts as the host's; absent: this process's own. */
  readonly hostNetns?: string | undefined;
}

/** Where wireguard-go makes its sockets. Source: its ipc/uapi_linux.go; it cannot be told another place. */
const SOCKET_DIR = "/var/run/wireguard";
const START_MS = 20_000;
const ANSWER_MS = 10_000;
const POLL_MS = 20;
/** It ends by itself when its device is gone; then it is told to. */
const END_MS = 3_000;

/**
 * wireguard-go, one process for each pod: about 5 MB. It makes its device in the host's namespace, where its UDP socket
 * stays, and the device then moves into the pod's; with that namespace it ends. It is in a session of its own, and goes on
 * when this daemon ends. Its name on the host is made from the sandbox's id: whoever comes later finds it by that.
 */
export class UserspaceBackend implements WireguardBackend {
  readonly kind = "wireguard-go";
  /** It pads to 16 bytes by the MTU that its device had on the host, so up to 15 may come beyond the link's own. */
  readonly reserveBytes = 15;
  readonly #deps: UserspaceBackendDeps;

  constructor(deps: UserspaceBackendDeps) {
    this.#deps = deps;
  }

  async ensure(place: LinkPlace, privateKey: WireguardKey, call: Call): Promise<void> {
    const { commands, hostNetns } = this.#deps;
    if (await this.#isRight(place, privateKey, call)) return;
    await this.remove(place, call);
    const name = hostName(place.sandboxId);
    const inHost = hostNetns === undefined ? [] : ["nsenter", `--net=${hostNetns}`, "--"];
    const [program = "", ...args] = [...inHost, WIREGUARD_GO, "-f", name];
    const child = spawn(program, args, { detached: true, stdio: "ignore", cwd: "/" });
    let ended: string | undefined;
    child.once("error", (e) => {
      ended = e.message;
    });
    child.once("exit", (code, signal) => {
      ended ??= `it ended with ${code ?? signal}`;
    });
    child.unref();
    try {
      await answering(name, () => ended, call);
      checkSet(await askUapi(socketOf(name), setRequest({ privateKey }), withDeadline(ANSWER_MS, call)));
      const netns = await commands.reachable(place.netnsPath);
      await commands.host("ip", ["link", "set", "dev", name, "netns", netns, "name", WIREGUARD_LINK], call);
    } catch (e) {
      child.kill("SIGKILL");
      throw e;
    }
  }

  async setPeer({ sandboxId }: LinkPlace, peer: WireguardPeer, call: Call): Promise<void> {
    const request = setRequest({ peers: [peer] });
    checkSet(await askUapi(socketOf(hostName(sandboxId)), request, withDeadline(ANSWER_MS, call)));
  }

  async isAlive({ sandboxId }: LinkPlace): Promise<boolean> {
    return await askUapi(socketOf(hostName(sandboxId)), GET_REQUEST, withDeadline(ANSWER_MS)).then(
      () => true,
      // Only nobody at all is death: one that is slow lives.
      (e: unknown) => Fault.from(e).code !== "unavailable",
    );
  }

  async remove({ sandboxId, netnsPath }: LinkPlace, call: Call): Promise<void> {
    const { commands } = this.#deps;
    const name = hostName(sandboxId);
    await commands.pod(netnsPath, "ip", ["link", "delete", WIREGUARD_LINK], call).catch(unlessGone);
    const socket = socketOf(name);
    await rm(socket, { force: true }); // which it takes for the order to end, too
    const until = performance.now() + END_MS;
    for (;;) {
      const pids = await processesOf(name);
      if (pids.length === 0) break;
      if (performance.now() > until) for (const pid of pids) kill(pid);
      await sleep(POLL_MS, call);
    }
    await rm(socket, { force: true });
  }

  async #isRight({ sandboxId, netnsPath }: LinkPlace, privateKey: WireguardKey, call: Call): Promise<boolean> {
    try {
      const answer = await askUapi(socketOf(hostName(sandboxId)), GET_REQUEST, withDeadline(ANSWER_MS, call));
      if (readGet(answer).privateKey !== privateKey) return false;
      await this.#deps.commands.pod(netnsPath, "ip", ["link", "show", "dev", WIREGUARD_LINK], call);
      return true;
    } catch (e) {
      if (call.signal.aborted) throw e;
      return false; // then it is made anew, and that says what is wrong
    }
  }
}

/** 15 characters are the most that a device's name can have. */
export function hostName(sandboxId: string): string {
  return `krw${createHash("sha256").update(sandboxId).digest("hex").slice(0, 12)}`;
}

function socketOf(name: string): string {
  return `${SOCKET_DIR}/${name}.sock`;
}

async function answering(name: string, ended: () => string | undefined, call: Call): Promise<void> {
  const bounded = withDeadline(START_MS, call);
  for (;;) {
    try {
      await askUapi(socketOf(name), GET_REQUEST, bounded);
      return;
    } catch (cause) {
      const end = ended();
      if (end === undefined && !bounded.signal.aborted) {
        await sleep(POLL_MS, bounded).catch(() => undefined); // the next turn sees that the time is over
        continue;
      }
      const message = `wireguard-go does not come up: ${end ?? "it does not answer"} (is there a /dev/net/tun?)`;
      throw new Fault("unavailable", message, {}, { cause });
    }
  }
}

/** There should be one; who died in the middle of something may have left another. */
async function processesOf(name: string): Promise<readonly number[]> {
  const found: number[] = [];
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const command = await readFile(`/proc/${entry}/cmdline`, "utf8").catch(() => ""); // it ended meanwhile
    if (command.includes(`${WIREGUARD_GO}\0-f\0${name}\0`)) found.push(Number(entry));
  }
  return found;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it ended meanwhile
  }
}

/** A namespace or a device that is gone is what was wanted. */
export function unlessGone(e: unknown): void {
  const fault = Fault.from(e);
  if (fault.code !== "not_found" && !/Cannot find device/.test(fault.message)) throw fault;
}

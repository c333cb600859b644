import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { background, withDeadline } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import { GuestNetwork } from "../../src/guest/net/index.ts";
import { openPodNetwork, PodNetworkConfig, verifyPodNetwork } from "../../src/node/podnetwork/index.ts";
import { askUapi, hostName } from "../../src/node/podnetwork/wireguard/index.ts";
import type { PodNetwork, PodNetworkTarget, WireguardTunnel } from "../../src/podnetwork/index.ts";
import { listProcesses, until } from "../e2e/harness/processes.ts";
import { NetworkNamespaces } from "../support/network-namespaces.ts";

const skip = process.getuid?.() === 0 ? false : "needs root";
const SOCKETS = "/var/run/wireguard";

/**
 * worker ── underlay ── guest ── tunnel ⊃ podns      As pod-network.test.ts, with wireguard-go on both sides: this host's
 *   └─ bridge ── pod                                 kernel may have no WireGuard. A VM's own is in test/e2e.
 */
describe("a pod network inside of WireGuard", { skip, timeout: 240_000 }, () => {
  const spaces = new NetworkNamespaces();
  const guests: { readonly child: ChildProcess; readonly name: string }[] = [];
  let dir: string;
  let network: PodNetwork;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "wgnet-"));
    for (const name of ["worker", "guest", "pod", "tunnel", "podns"]) await spaces.add(name);
    await spaces.join("worker", "vm1", "guest", "eth0");
    await spaces.ip("worker", "address add 10.1.0.1/24 dev vm1");
    await spaces.ip("guest", "address add 10.1.0.2/24 dev eth0");
    await spaces.ip("worker", "link add br0 type bridge");
    await spaces.ip("worker", "link set br0 up");
    await spaces.ip("worker", "address add 10.2.0.1/24 dev br0");
    await spaces.ip("worker", "address add fd02::1/64 dev br0 nodad");
    await spaces.join("pod", "eth0", "worker", "pode0");
    await spaces.ip("worker", "link set pode0 master br0");
    await spaces.ip("pod", "address add 10.2.0.10/24 dev eth0");
    await spaces.ip("pod", "address add fd02::10/64 dev eth0 nodad");
    await spaces.ip("pod", "route add default via 10.2.0.1");
    network = open();
  });
  after(async () => {
    for (const { child } of guests) child.kill("SIGKILL");
    await spaces[Symbol.asyncDispose]();
    for (const { name } of guests) await rm(join(SOCKETS, `${name}.sock`), { force: true });
    await rm(dir, { recursive: true });
  });

  function open(tunnel: "wireguard" | "vxlan" = "wireguard"): PodNetwork {
    const config = parseConfig(PodNetworkConfig, { tunnel, bypassConntrack: false }, "test");
    const options = { config, stateDir: dir, log: silentLogger(), hostNetns: spaces.path("worker") };
    return openPodNetwork(options) ?? assert.fail("there is a pod network");
  }

  /** As in a VM, with a process in the place of the kernel's link. */
  async function guestLink({ linkMtu }: { readonly linkMtu: number }): Promise<string> {
    const name = `krt${randomBytes(4).toString("hex")}`;
    const args = [`--net=${spaces.path("guest")}`, "--", "wireguard-go", "-f", name];
    guests.push({ child: spawn("nsenter", args, { stdio: "ignore" }), name });
    await until("wireguard-go to listen", 30_000, () => existsSync(join(SOCKETS, `${name}.sock`)));
    await spaces.ip("guest", `link set dev ${name} mtu ${linkMtu}`);
    await spaces.ip("guest", `link set dev ${name} netns ${spaces.path("tunnel")} name kr-wg0`);
    return name;
  }

  function guestHalf(): GuestNetwork {
    let name = "";
    const settings: { tunnel: WireguardTunnel; privateKey: string }[] = [];
    return new GuestNetwork({
      namespaces: { pod: spaces.path("podns"), tunnel: spaces.path("tunnel") },
      makeTunnelNamespace: () => undefined,
      setLink: (tunnel, privateKey) => settings.push({ tunnel, privateKey }),
      run: async (where, batch, force = false) => {
        const linkMtu = Number(/^link add name kr-wg0 .* mtu (\d+) type wireguard$/m.exec(batch)?.[1]);
        if (where === "root") {
          name = await guestLink({ linkMtu });
          return;
        }
        for (const { tunnel, privateKey } of settings.splice(0)) {
          const hex = (key: string): string => Buffer.from(key, "base64").toString("hex");
          const peer = `public_key=${hex(tunnel.workerKey)}\nallowed_ip=${tunnel.workerAddress}/32`;
          const lines = `set=1\nprivate_key=${hex(privateKey)}\nlisten_port=${tunnel.listenPort}\n${peer}\n\n`;
          assert.match(await askUapi(join(SOCKETS, `${name}.sock`), lines, withDeadline(10_000)), /errno=0/);
        }
        const namespace = where === "tunnel" ? "tunnel" : "podns";
        const args = [...(force ? ["-force"] : []), "-batch", "-"];
        await spaces.run(namespace, "ip", args, { input: batch });
      },
    });
  }

  const ping = (from: string, to: string, bytes = 56): Promise<string> =>
    spaces.run(from, "busybox", ["ping", "-c", "1", "-W", "5", "-s", String(bytes), to]);
  const answers = (from: string, to: string): Promise<true> =>
    until(`${to} to answer`, 60_000, async () => {
      const tried = await spaces.try(from, "busybox", ["ping", "-c", "1", "-W", "2", to]);
      return tried.code === 0 ? true : undefined;
    });
  /** The process that carries this test's pod on the worker. */
  const carrier = (sandboxId: string): number | undefined =>
    listProcesses().find(({ command }) => command === `wireguard-go -f ${hostName(sandboxId)}`)?.pid;
  /** Everything of a pod that is not in its namespace, which may be gone. */
  async function gone(sandboxId: string): Promise<void> {
    assert.equal(carrier(sandboxId), undefined);
    assert.equal(existsSync(join(SOCKETS, `${hostName(sandboxId)}.sock`)), false);
    assert.deepEqual(await readdir(join(dir, "wireguard")), []);
    assert.doesNotMatch(await spaces.ip("worker", "-o link show"), /krw|kr-/);
  }
  const linksOf = async (name: string): Promise<readonly string[]> =>
    [...(await spaces.ip(name, "-o link show")).matchAll(/^\d+: ([^:@]+)/gm)].map((m) => m[1] ?? "").sort();

  it("carries the pod's packets by IPv4 and IPv6, and leaves nothing when it is taken down", async () => {
    const target = { sandboxId: randomUUID(), netnsPath: spaces.path("pod") };
    const found = (await network.inspect(target.netnsPath, background())) ?? assert.fail("there is an interface");
    const attach = (by: PodNetwork) => by.attach(target, found, ["10.1.0.2"], withDeadline(60_000));
    const plan = (await attach(network)) ?? assert.fail("the underlay carries a tunnel");
    // 1500 less WireGuard's 60 and what wireguard-go pads, less VXLAN's 50.
    assert.deepEqual([plan.tunnel.kind, plan.interfaces[0]?.mtu], ["wireguard", 1375]);
    // The same to the letter, since a guest takes no other.
    for (const by of [network, open()]) assert.equal(JSON.stringify(await attach(by)), JSON.stringify(plan));
    assert.deepEqual(await network.inspect(target.netnsPath, background()), found, "our own link is none of the pod's");
    const record = join(dir, "wireguard", `${target.sandboxId}.json`);
    assert.equal((await stat(record)).mode & 0o777, 0o600);

    await assert.rejects(network.complete(target, "", background()), {
      code: "failed_precondition",
      message: /did not answer with a key/,
    });
    const guest = guestHalf();
    const key = await guest.apply(JSON.stringify(plan));
    assert.equal(await guest.apply(JSON.stringify(plan)), key);
    await network.complete(target, key, withDeadline(30_000));
    await network.complete(target, key, withDeadline(30_000));
    await answers("worker", "10.2.0.10");
    await answers("podns", "fd02::1");
    await ping("podns", "10.2.0.1", 1375 - 28);
    assert.deepEqual(await linksOf("podns"), ["eth0", "lo"], "containers see their interface and nothing below it");
    assert.deepEqual(await linksOf("pod"), ["eth0", "kr-vx0", "kr-wg0", "lo"]);

    const before = carrier(target.sandboxId) ?? assert.fail("a process carries it");
    process.kill(before, "SIGKILL");
    await until("the process to be started again", 60_000, () => {
      const now = carrier(target.sandboxId);
      return now !== undefined && now !== before;
    });
    await answers("worker", "10.2.0.10");

    await network.detach(target, withDeadline(30_000));
    await network.detach(target, withDeadline(30_000));
    assert.deepEqual(await linksOf("pod"), ["eth0", "lo"]);
    await gone(target.sandboxId);
  });

  for (const [what, end] of [
    ["a daemon that uses VXLAN now", (t: PodNetworkTarget) => open("vxlan").detach(t, withDeadline(30_000))],
    ["a daemon that knows no pod", () => open().retain([])],
    [
      "whoever comes when its namespace is gone",
      async (t: PodNetworkTarget) => {
        await spaces.remove("pod");
        await open().detach(t, withDeadline(30_000));
      },
    ],
  ] as const) {
    it(`is taken down by ${what}`, async () => {
      const target = { sandboxId: randomUUID(), netnsPath: spaces.path("pod") };
      const found = (await network.inspect(target.netnsPath, background())) ?? assert.fail("there is an interface");
      assert.ok((await network.attach(target, found, ["10.1.0.2"], withDeadline(60_000))) !== undefined);
      assert.ok(carrier(target.sandboxId) !== undefined);
      await end(target);
      await gone(target.sandboxId);
    });
  }

  it("is what a check of this host tells of, with whose WireGuard it is", async () => {
    const config = parseConfig(PodNetworkConfig, { tunnel: "wireguard", port: 4790 }, "test");
    const [finding] = await verifyPodNetwork(config, withDeadline(30_000));
    assert.equal(finding?.state, "ok", JSON.stringify(finding));
    assert.match(finding?.detail ?? "", /^WireGuard to UDP port 4790 of pod VMs: (this host's kernel|by wireguard-go)/);
  });

  it("is refused for guests that cannot answer with a key", async () => {
    const target = { sandboxId: randomUUID(), netnsPath: spaces.path("worker") };
    await assert.rejects(network.reserve(target, 1, undefined, background()), {
      code: "failed_precondition",
      message: /stock image's forwarder knows no WireGuard.*podNetwork\.tunnel/,
    });
  });
});

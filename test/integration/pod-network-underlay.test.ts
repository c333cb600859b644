import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { background, withDeadline } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import { GuestNetwork } from "../../src/guest/net/index.ts";
import { openPodNetwork, PodNetworkConfig } from "../../src/node/podnetwork/index.ts";
import type { PodNetwork, PodNetworkPlan } from "../../src/podnetwork/index.ts";
import { NetworkNamespaces } from "../support/network-namespaces.ts";

const skip = process.getuid?.() === 0 ? false : "needs root";
const PORT = 4789;
const OTHER_PORT = 4790;

/** worker ── underlay ── guest ⊃ podns, and on the worker a pod of a bridge; what is between worker and guest varies. */
for (const netlink of [true, false])
  describe(`the network between worker and VM, ${netlink ? "by netlink" : "by ip and tc"}`, {
    skip,
    timeout: 120_000,
  }, () => {
    const spaces = new NetworkNamespaces();
    let dir: string;
    let target: { readonly sandboxId: string; readonly netnsPath: string };
    before(async () => {
      dir = await mkdtemp(join(tmpdir(), "underlay-"));
      for (const name of ["worker", "guest", "pod"]) await spaces.add(name);
      await spaces.join("worker", "vm", "guest", "eth0");
      await spaces.join("pod", "eth0", "worker", "pod0");
      for (const [name, words] of [
        ["worker", "address add 10.1.0.1/24 dev vm"],
        ["guest", "address add 10.1.0.2/24 dev eth0"],
        ["worker", "address add fd01::1/64 dev vm nodad"],
        ["guest", "address add fd01::2/64 dev eth0 nodad"],
        ["worker", "address add 10.2.0.1/24 dev pod0"],
        ["worker", "address add fd02::1/64 dev pod0 nodad"],
        ["pod", "address add 10.2.0.7/24 dev eth0"],
        ["pod", "address add fd02::7/64 dev eth0 nodad"],
      ] as const)
        await spaces.ip(name, words);
      target = { sandboxId: randomUUID(), netnsPath: spaces.path("pod") };
    });
    after(async () => {
      await spaces[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    });

    function open(settings: Partial<PodNetworkConfig> = {}): PodNetwork {
      const config = parseConfig(PodNetworkConfig, { bypassConntrack: false, ...settings }, "test");
      const options = { config, stateDir: dir, log: silentLogger(), hostNetns: spaces.path("worker") };
      return openPodNetwork({ ...options, netlink }) ?? assert.fail("there is a pod network by default");
    }

    /** Carries the pod's network to the guest, while `check` runs. */
    async function carried(
      address: string,
      check: (plan: PodNetworkPlan) => Promise<void>,
      settings: Partial<PodNetworkConfig> = {},
    ): Promise<void> {
      const network = open(settings);
      const found = (await network.inspect(target.netnsPath, background())) ?? assert.fail("there is an interface");
      try {
        const plan = await network.attach(target, found, [address], withDeadline(30_000));
        assert.ok(plan !== undefined);
        await spaces.add("podns");
        try {
          const guest = new GuestNetwork({
            namespaces: { pod: spaces.path("podns"), tunnel: "" },
            makeTunnelNamespace: () => assert.fail("VXLAN needs no namespace of its own"),
            setLink: () => assert.fail("VXLAN has no keys"),
            run: async (where, batch, force = false) => {
              const args = [...(force ? ["-force"] : []), "-batch", "-"];
              await spaces.run(where === "root" ? "guest" : "podns", "ip", args, { input: batch });
            },
          });
          await guest.apply(JSON.stringify(plan));
          await check(plan);
        } finally {
          await spaces.remove("podns");
        }
      } finally {
        await network.detach(target, background());
        await network.release(target.sandboxId);
      }
    }

    const ping = async (bytes: number, to: string): Promise<boolean> => {
      const command = ["ping", "-c", "1", "-W", "2", "-s", String(bytes), to];
      return (await spaces.try("podns", "busybox", command)).code === 0;
    };
    /** Packets that had to be cut, by either end of the tunnel or by the pod. */
    const fragments = async (): Promise<readonly number[]> => {
      const counts = [];
      for (const name of ["worker", "guest", "podns"]) {
        const [names = "", values = ""] = (await spaces.run(name, "grep", ["^Ip:", "/proc/net/snmp"])).split("\n");
        counts.push(Number(values.split(" ")[names.split(" ").indexOf("FragCreates")]));
        const ipv6 = await spaces.run(name, "cat", ["/proc/net/snmp6"]);
        counts.push(Number(/^Ip6FragCreates\s+(\d+)/m.exec(ipv6)?.[1]));
      }
      return counts;
    };

    const underlay = async (mtu: number): Promise<void> => {
      await spaces.ip("worker", `link set vm mtu ${mtu}`);
      await spaces.ip("guest", `link set eth0 mtu ${mtu}`);
    };

    for (const { what, mtu, address, expected } of [
      { what: "a small one", mtu: 1400, address: "10.1.0.2", expected: 1350 },
      { what: "one of 1500 bytes", mtu: 1500, address: "10.1.0.2", expected: 1450 },
      { what: "one with room: the interface keeps its own", mtu: 9000, address: "10.1.0.2", expected: 1500 },
      { what: "one of IPv6", mtu: 1500, address: "fd01::2", expected: 1430 },
    ])
      it(`${what} decides on the pod's MTU, and that much passes uncut`, async () => {
        await underlay(mtu);
        await carried(address, async (plan) => {
          assert.deepEqual(
            plan.interfaces.map((i) => i.mtu),
            [expected],
          );
          const before = await fragments();
          assert.ok(await ping(expected - 28, "10.2.0.1"), "as large as it may be, IPv4");
          assert.ok(await ping(expected - 48, "fd02::1"), "as large as it may be, IPv6");
          assert.deepEqual(await fragments(), before);
        });
      });

    it("a route's own limit counts as well", async () => {
      await underlay(1500);
      await spaces.ip("worker", "route add 10.1.0.2/32 dev vm src 10.1.0.1 mtu 1420");
      try {
        await carried("10.1.0.2", async (plan) => assert.equal(plan.interfaces[0]?.mtu, 1370));
      } finally {
        await spaces.ip("worker", "route delete 10.1.0.2/32 dev vm");
      }
    });

    it("one that is too small for the pod's IPv6 address is refused with both figures", async () => {
      await underlay(1320);
      const refused = carried("10.1.0.2", async () => assert.fail("there is no plan"));
      await assert.rejects(refused, { code: "failed_precondition", message: /leaves 1270 bytes.*eth0 needs 1280/ });
      await underlay(1500);
    });

    it("another program's VXLAN at the same port, as Calico's, works beside ours", async () => {
      await spaces.ip("worker", `link add vxlan.calico type vxlan id 4096 local 10.1.0.1 dstport ${PORT} nolearning`);
      await spaces.ip("worker", "link set vxlan.calico up");
      try {
        await carried("10.1.0.2", async () => assert.ok(await ping(56, "10.2.0.1")));
      } finally {
        await spaces.ip("worker", "link delete vxlan.calico");
      }
    });

    it("where Calico drops what comes to its port from hosts that it does not know, another port works", async () => {
      const rule = ["-p", "udp", "--dport", String(PORT), "-m", "addrtype", "--dst-type", "LOCAL", "-j", "DROP"];
      await spaces.run("worker", "iptables", ["-A", "INPUT", ...rule]);
      try {
        await carried("10.1.0.2", async () => assert.equal(await ping(56, "10.2.0.1"), false, "the port is Calico's"));
        const settings = { port: OTHER_PORT };
        await carried("10.1.0.2", async () => assert.ok(await ping(56, "10.2.0.1")), settings);
      } finally {
        await spaces.run("worker", "iptables", ["-D", "INPUT", ...rule]);
      }
    });

    it("a device that takes the whole port is named by the port, and the setting that helps", async () => {
      await spaces.ip("worker", `link add flow0 type vxlan external dstport ${PORT}`);
      await spaces.ip("worker", "link set flow0 up");
      try {
        const refused = carried("10.1.0.2", async () => assert.fail("there is no plan"));
        const message = new RegExp(`UDP port ${PORT} is used by another program of this host.*podNetwork\\.port`);
        await assert.rejects(refused, { code: "failed_precondition", message });
        await carried("10.1.0.2", async () => assert.ok(await ping(56, "10.2.0.1")), { port: OTHER_PORT });
      } finally {
        await spaces.ip("worker", "link delete flow0");
      }
    });
  });

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { background, withDeadline } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import { GuestNetwork } from "../../src/guest/net/index.ts";
import { openPodNetwork, PodNetworkConfig } from "../../src/node/podnetwork/index.ts";
import type { PodNetns, PodNetwork, PodNetworkPlan } from "../../src/podnetwork/index.ts";
import { NetworkNamespaces } from "../support/network-namespaces.ts";

const skip = process.getuid?.() === 0 ? false : "needs root";

/**
 * worker ── underlay ── guest ⊃ podns       The pod's namespace on the worker hangs on a bridge, as the CNI's bridge
 *   └─ bridge ── pod                         plugin makes it; podns is where the containers are.
 */
for (const netlink of [true, false])
  describe(`the pod network between real namespaces, ${netlink ? "by netlink" : "by ip and tc"}`, {
    skip,
    timeout: 120_000,
  }, () => {
    const spaces = new NetworkNamespaces();
    let dir: string;
    let network: PodNetwork;
    before(async () => {
      dir = await mkdtemp(join(tmpdir(), "podnet-"));
      for (const name of ["worker", "guest", "guest2"]) await spaces.add(name);
      await spaces.join("worker", "vm1", "guest", "eth0");
      await spaces.join("worker", "vm2", "guest2", "eth0");
      for (const words of ["address add 10.1.0.1/24 dev vm1", "address add 10.1.1.1/24 dev vm2"])
        await spaces.ip("worker", words);
      await spaces.ip("guest", "address add 10.1.0.2/24 dev eth0");
      await spaces.ip("guest2", "address add 10.1.1.2/24 dev eth0");
      for (const words of [
        "link add br0 type bridge",
        "link set br0 up",
        "address add 10.2.0.1/24 dev br0",
        "address add fd02::1/64 dev br0 nodad",
        "link add br1 type bridge",
        "link set br1 up",
        "address add 10.3.0.1/24 dev br1",
      ])
        await spaces.ip("worker", words);
      network = open();
    });
    after(async () => {
      await spaces[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    });

    function open(): PodNetwork {
      const config = parseConfig(PodNetworkConfig, {}, "test");
      const options = { config, stateDir: dir, log: silentLogger(), hostNetns: spaces.path("worker") };
      return openPodNetwork({ ...options, netlink }) ?? assert.fail("there is a pod network by default");
    }

    /** What the CNI's bridge plugin does, with a permanent neighbour and odd routes on top. */
    async function makePod(name: string, host: number): Promise<{ sandboxId: string; netnsPath: string }> {
      await spaces.add(name);
      await spaces.join(name, "eth0", "worker", `${name}e0`);
      await spaces.join(name, "net1", "worker", `${name}e1`);
      await spaces.ip("worker", `link set ${name}e0 master br0`);
      await spaces.ip("worker", `link set ${name}e1 master br1`);
      for (const words of [
        `address add 10.2.0.${host}/24 dev eth0`,
        `address add fd02::${host}/64 dev eth0 nodad`,
        "route add default via 10.2.0.1",
        "-6 route add default via fd02::1 metric 77",
        `address add 10.3.0.${host}/32 dev net1`,
        `route add 169.254.1.1 dev net1 scope link`,
        `route add 10.3.0.0/24 via 169.254.1.1 dev net1 onlink metric 5 mtu 1400`,
        "route add 10.99.0.0/16 via 10.2.0.1 metric 9",
        "route add 10.99.0.0/16 via 10.2.0.1 metric 10",
      ])
        await spaces.ip(name, words);
      const [gateway] = JSON.parse(await spaces.ip("worker", "-json link show br1")) as { address: string }[];
      await spaces.ip(name, `neighbour add 169.254.1.1 lladdr ${gateway?.address} dev net1 nud permanent`);
      return { sandboxId: randomUUID(), netnsPath: spaces.path(name) };
    }

    function guestHalf(guest: string, podns: string): GuestNetwork {
      return new GuestNetwork({
        namespaces: { pod: spaces.path(podns), tunnel: "" },
        makeTunnelNamespace: () => assert.fail("VXLAN needs no namespace of its own"),
        setLink: () => assert.fail("VXLAN has no keys"),
        run: async (where, batch, force = false) => {
          const args = [...(force ? ["-force"] : []), "-batch", "-"];
          await spaces.run(where === "root" ? guest : podns, "ip", args, { input: batch });
        },
      });
    }

    async function carry(
      target: { sandboxId: string; netnsPath: string },
      guest: string,
      address: string,
    ): Promise<{ found: PodNetns; plan: PodNetworkPlan }> {
      const found = (await network.inspect(target.netnsPath, background())) ?? assert.fail("there are interfaces");
      const plan = await network.attach(target, found, [address], withDeadline(30_000));
      assert.ok(plan !== undefined);
      await spaces.add(`${guest}p`);
      await guestHalf(guest, `${guest}p`).apply(JSON.stringify(plan));
      return { found, plan };
    }

    const ping = (from: string, to: string, bytes = 56): Promise<string> =>
      spaces.run(from, "busybox", ["ping", "-c", "1", "-W", "5", "-s", String(bytes), to]);
    const fragments = async (name: string): Promise<number> => {
      const [names = "", values = ""] = (await spaces.run(name, "grep", ["^Ip:", "/proc/net/snmp"])).split("\n");
      return Number(values.split(" ")[names.split(" ").indexOf("FragCreates")]);
    };
    const left = async (name: string): Promise<string> =>
      `${await spaces.run(name, "tc", ["qdisc", "show", "ingress"])}${await spaces.ip(name, "-o link show type vxlan")}`;
    const rules = async (): Promise<string> =>
      (await spaces.run("worker", "iptables", ["-t", "raw", "-S"])) +
      (await spaces.run("worker", "ip6tables", ["-t", "raw", "-S"]));

    it("is the pod's own in the guest, and leaves nothing when it is taken down", async () => {
      const emptyRules = await rules();
      const pod = await makePod("a", 10);
      const { found, plan } = await carry(pod, "guest", "10.1.0.2");
      assert.deepEqual(
        plan.interfaces.map((i) => i.mtu),
        [1450, 1450],
      );
      assert.equal(plan.tunnel.workerAddress, "10.1.0.1");

      const again = await readBack("guestp");
      const byText = (a: object, b: object): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
      assert.deepEqual(again.routes.toSorted(byText), found.routes.toSorted(byText));
      assert.deepEqual(again.neighbours, found.neighbours);
      assert.deepEqual(
        again.interfaces,
        found.interfaces.map((i) => ({ ...i, mtu: 1450 })),
      );

      for (const peer of ["10.2.0.10", "fd02::10", "10.3.0.10"]) await ping("worker", peer);
      for (const peer of ["10.2.0.1", "fd02::1", "10.3.0.1"]) await ping("guestp", peer);
      // As much as the pod's interface takes travels whole.
      await ping("guestp", "10.2.0.1", 1450 - 28);
      assert.deepEqual(await Promise.all(["guestp", "guest", "worker"].map(fragments)), [0, 0, 0]);
      await ping("guestp", "10.2.0.1", 1450 - 27);
      assert.deepEqual(await Promise.all(["guestp", "guest"].map(fragments)), [2, 0]);

      // Attaching once more keeps what is there.
      const before = await spaces.ip("a", "-json link show type vxlan");
      assert.deepEqual(await network.attach(pod, found, ["10.1.0.2"], background()), plan);
      assert.equal(await spaces.ip("a", "-json link show type vxlan"), before);
      // Connection tracking is told behind the attach.
      await until(async () => (await rules()).split("\n").filter((l) => l.includes(pod.sandboxId)).length === 2);

      await network.detach(pod, background());
      await network.detach(pod, background());
      assert.equal(await left("a"), "");
      assert.equal(await rules(), emptyRules);
      await spaces.remove("guestp");
      await spaces.remove("a");
      await network.release(pod.sandboxId);
    });

    it("carries TCP between two pods", async () => {
      const [a, b] = [await makePod("b", 11), await makePod("c", 12)];
      const plans = [(await carry(a, "guest", "10.1.0.2")).plan, (await carry(b, "guest2", "10.1.1.2")).plan];
      assert.equal(new Set(plans.flatMap((p) => p.tunnel.vnis)).size, 4);
      const serve = `
      const payload = Buffer.alloc(32 << 20, "x");
      let requests = 0;
      const server = require("node:http").createServer((_, r) => {
        r.setHeader("connection", "close");
        r.end(payload);
        if (++requests === 2) server.close();
      }).listen(8080, "::");
      setTimeout(() => process.exit(1), 30_000).unref();`;
      const client = (host: string): string => `
      (async () => {
        for (let i = 0; i < 50; i++) {
          try {
            const r = await fetch("http://${host}:8080/");
            console.log((await r.arrayBuffer()).byteLength);
            process.exit(0);
          } catch { await new Promise((r) => setTimeout(r, 100)); }
        }
        process.exit(1);
      })()`;
      const node = process.execPath;
      const server = spaces.try("guestp", node, ["-e", serve], { timeoutMs: 40_000 });
      for (const host of ["10.2.0.11", "[fd02::11]"])
        assert.equal((await spaces.run("guest2p", node, ["-e", client(host)])).trim(), String(32 << 20));
      await spaces.remove("b"); // the CNI was faster
      await network.detach(a, background());
      await network.detach(b, background());
      assert.equal(await left("c"), "");
      await spaces.remove("guestp");
      await spaces.remove("guest2p");
      await spaces.remove("c");
      for (const { sandboxId } of [a, b]) await network.release(sandboxId);
      assert.doesNotMatch(await rules(), /kata-remote/);
      await server;
    });

    it("moves on to the next number when another daemon on the host has one", async () => {
      const pod = await makePod("d", 13);
      const { next } = JSON.parse(await readFile(join(dir, "vnis.json"), "utf8")) as { next: number };
      await spaces.ip("worker", `link add other type vxlan id ${next + 1} remote 10.1.0.9 dstport 4789 nolearning`);
      const found = (await network.inspect(pod.netnsPath, background())) ?? assert.fail();
      const plan = await network.attach(pod, found, ["10.1.0.2"], background());
      assert.deepEqual(plan?.tunnel.vnis, [next + 2, next + 3]);
      assert.deepEqual((await open().attach(pod, found, ["10.1.0.2"], background()))?.tunnel.vnis, plan?.tunnel.vnis);
      await spaces.ip("worker", "link delete other");
      // Another VM for the same pod: the tunnels follow it.
      await network.attach(pod, found, ["10.1.1.2"], background());
      assert.match(await spaces.ip("d", "-d link show kr-vx0"), /remote 10\.1\.1\.2 local 10\.1\.1\.1/);
      await until(async () => (await rules()).includes("-d 10.1.1.2/32"));
      await network.detach(pod, background());
      assert.equal(await left("d"), "");
      await spaces.remove("d");
      await network.retain([]);
    });

    it("says what is missing before any VM is asked for", async () => {
      await assert.rejects(network.inspect(join(dir, "nowhere"), background()), {
        code: "failed_precondition",
        message: /nowhere is not there: the CNI/,
      });
      await spaces.add("empty");
      assert.equal(await network.inspect(spaces.path("empty"), background()), undefined);
      const pod = await makePod("e", 14);
      const found = (await network.inspect(pod.netnsPath, background())) ?? assert.fail();
      assert.equal(await network.attach(pod, found, ["127.0.0.1"], background()), undefined);
      await assert.rejects(network.attach(pod, found, ["172.16.0.1"], background()), { message: /unreachable/i });
      const socket = `
      require("node:dgram").createSocket("udp4").bind(4789, () => console.log("ready"));
      setTimeout(() => process.exit(), 4_000);`;
      const holder = spaces.try("worker", process.execPath, ["-e", socket]);
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      await assert.rejects(network.attach(pod, found, ["10.1.0.2"], background()), {
        code: "failed_precondition",
        message: /UDP port 4789 is used by another program/,
      });
      await holder;
      await network.detach(pod, background());
      await spaces.remove("e");
    });

    async function until(check: () => Promise<boolean>): Promise<void> {
      for (const end = performance.now() + 10_000; !(await check()); ) {
        assert.ok(performance.now() < end, "in time");
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }

    async function readBack(name: string): Promise<PodNetns> {
      return (await network.inspect(spaces.path(name), background())) ?? assert.fail("there are interfaces");
    }
  });

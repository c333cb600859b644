import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { silentLogger } from "../../src/base/log.ts";
import { openPodNetwork, PodNetworkConfig } from "../../src/node/podnetwork/index.ts";
import { type PodNetwork, type StockPodNetwork, toStockNetwork } from "../../src/podnetwork/index.ts";
import { NetworkNamespaces } from "../support/network-namespaces.ts";

const skip = process.getuid?.() === 0 ? false : "needs root";

for (const netlink of [true, false])
  describe(`a tunnel to a stock forwarder, which knows it before it has an address, ${netlink ? "by netlink" : "by ip and tc"}`, {
    skip,
    timeout: 120_000,
  }, () => {
    const spaces = new NetworkNamespaces();
    let dir: string;
    let network: PodNetwork;

    before(async () => {
      dir = await mkdtemp(join(tmpdir(), "stocknet-"));
      for (const name of ["worker", "guest", "podns", "pod"]) await spaces.add(name);
      await spaces.join("worker", "vm1", "guest", "eth0");
      await spaces.join("pod", "eth0", "worker", "br0p");
      for (const words of [
        "address add 10.1.0.1/24 dev vm1",
        "route add default via 10.1.0.2",
        "address add 10.2.0.1/24 dev br0p",
      ])
        await spaces.ip("worker", words);
      await spaces.ip("guest", "address add 10.1.0.2/24 dev eth0");
      for (const words of ["address add 10.2.0.7/24 dev eth0", "route add default via 10.2.0.1"])
        await spaces.ip("pod", words);
      const options = { stateDir: dir, log: silentLogger(), hostNetns: spaces.path("worker"), netlink };
      network = openPodNetwork({ ...options, config: parseConfig(PodNetworkConfig, {}, "test") }) ?? assert.fail();
    });
    after(async () => {
      await spaces[Symbol.asyncDispose]();
      await rm(dir, { recursive: true });
    });

    /** What the forwarder does with its configuration, in its order. Source: wire contract §3.12. */
    async function forwarder(config: StockPodNetwork): Promise<void> {
      const { "vxlan-id": id, "vxlan-port": port, "worker-node-ip": worker, podip, routes } = config;
      const remote = worker.split("/")[0];
      await spaces.ip("guest", `link add vxlan0 type vxlan id ${id} remote ${remote} dstport ${port} nolearning`);
      await spaces.run("guest", "ip", [
        "link",
        "set",
        "vxlan0",
        "netns",
        spaces.path("podns"),
        "name",
        config.interface,
      ]);
      await spaces.ip(
        "podns",
        `link set ${config.interface} address ${config["pod-hw-addr"]} mtu ${Math.min(config.mtu, 1450)} up`,
      );
      await spaces.ip("podns", `address add ${podip} dev ${config.interface}`);
      const connected = (JSON.parse(await spaces.ip("podns", "-json route show proto kernel")) as { dst: string }[])[0]
        ?.dst;
      await spaces.ip("podns", `route delete ${connected}`);
      for (const { dst } of routes.filter((r) => r.gw === ""))
        await spaces.ip("podns", `route add ${dst} dev ${config.interface} scope link`);
      for (const { dst, gw } of routes.filter((r) => r.gw !== ""))
        await spaces.ip("podns", `route add ${dst} via ${gw}`);
    }

    it("passes over a number that another program has, and carries the pod's packets", async () => {
      await spaces.ip("worker", "link add other type vxlan id 555000 remote 10.1.0.9 dstport 4789 nolearning");
      const target = { sandboxId: randomUUID(), netnsPath: spaces.path("pod") };
      const found = (await network.inspect(target.netnsPath, background())) ?? assert.fail();
      const { written, ...reserved } = await network.reserve(target, 1, undefined, background());
      await written;
      assert.deepEqual(reserved, { vnis: [555_001], port: 4789, workerAddress: "10.1.0.1/24", dedicated: false });
      assert.deepEqual((await network.reserve(target, 1, undefined, background())).vnis, [555_001]);
      const { workerAddress, port, dedicated } = reserved;
      const facts = { workerAddress, port, dedicated, vni: 555_001, index: 0, externalViaVm: false, podSubnets: [] };
      await forwarder(toStockNetwork(found, facts)); // may come first: neither waits for the other
      const planned = await network.plan(target, found, ["10.1.0.2"], background());
      const told = { ...target, vnis: reserved.vnis };
      assert.deepEqual(await network.attach(told, found, ["10.1.0.2"], background()), planned, "as it was said");
      assert.deepEqual(planned?.tunnel.vnis, reserved.vnis);
      await spaces.run("podns", "busybox", ["ping", "-c", "1", "-W", "5", "10.2.0.1"]);
      await spaces.run("worker", "busybox", ["ping", "-c", "1", "-W", "5", "10.2.0.7"]);
      await network.detach(target, background());
    });

    it("fails, by its number, when somebody took that after the VM was told", async () => {
      const target = { sandboxId: randomUUID(), netnsPath: spaces.path("pod") };
      const found = (await network.inspect(target.netnsPath, background())) ?? assert.fail();
      const { vnis } = await network.reserve(target, 1, undefined, background());
      const take = `link add later type vxlan id ${vnis[0]} remote 10.1.0.9 dstport 4789 nolearning`;
      if (netlink) {
        await assert.rejects(spaces.ip("worker", take), /already exists/, "the number is held from the start");
        await spaces.ip("pod", "link delete kr-vx0");
      }
      await spaces.ip("worker", take);
      await assert.rejects(network.attach({ ...target, vnis }, found, ["10.1.0.2"], background()), {
        code: "failed_precondition",
        message: new RegExp(`${vnis[0]}, which the pod VM was told`),
      });
    });

    it("has its worker's end on an interface that is named, or says what is missing", async () => {
      const target = { sandboxId: randomUUID(), netnsPath: spaces.path("pod") };
      const named = await network.reserve(target, 1, "br0p", background());
      assert.equal(named.workerAddress, "10.2.0.1/24");
      assert.equal(named.dedicated, true);
      await assert.rejects(network.reserve(target, 1, "nope", background()), /interface nope cannot be read/);
      await spaces.ip("worker", "route delete default");
      await assert.rejects(network.reserve(target, 1, undefined, background()), /no default IPv4 route/);
    });
  });

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { silentLogger } from "../../src/base/log.ts";
import { NetlinkNetwork } from "../../src/node/podnetwork/netlink/index.ts";
import { type NetnsOutput, readNetns } from "../../src/node/podnetwork/read-netns.ts";
import { VniInUse } from "../../src/node/podnetwork/vxlan-links.ts";
import { NetworkNamespaces } from "../support/network-namespaces.ts";

const skip = process.getuid?.() === 0 ? false : "needs root";

describe("netlink and ip say the same", { skip, timeout: 60_000 }, () => {
  const spaces = new NetworkNamespaces();
  let network: NetlinkNetwork;
  const pod = (): string => spaces.path("pod");

  before(async () => {
    for (const name of ["worker", "pod"]) await spaces.add(name);
    await spaces.join("pod", "eth0", "worker", "up0");
    for (const words of ["address add 10.1.0.1/24 dev up0", "route add default via 10.1.0.2"])
      await spaces.ip("worker", words);
    for (const words of [
      "address add 10.2.0.7/24 dev eth0",
      "address add fd02::a:0:0:7/64 dev eth0 nodad",
      "route add default via 10.2.0.1",
      "route add 10.99.0.0/16 via 10.2.0.1 metric 9 mtu 1400 advmss 1200",
      "route add 10.98.0.0/16 via inet6 fd02::1",
      "route add 169.254.1.1 dev eth0 scope link",
      "route add 10.97.0.1 via 169.254.1.1 dev eth0 onlink src 10.2.0.7",
      "-6 route add default via fd02::1 metric 77",
      "neighbour add 169.254.1.1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
      "neighbour add fd02::1 lladdr 02:00:00:00:00:0a dev eth0 nud permanent",
    ])
      await spaces.ip("pod", words);
    network = new NetlinkNetwork({ hostNetns: spaces.path("worker"), log: silentLogger() });
  });
  after(() => spaces[Symbol.asyncDispose]());

  const ip = async <T>(words: string): Promise<readonly T[]> =>
    JSON.parse((await spaces.ip("pod", words)) || "[]") as T[];

  it("of a namespace with every kind of route", async () => {
    const printed = {
      links: await ip("-json -d address show"),
      routes4: await ip("-N -json -d -4 route show table main"),
      routes6: await ip("-N -json -d -6 route show table main"),
      neighbours: await ip("-json -d neighbour show nud permanent"),
    } as NetnsOutput;
    const read = (await network.inspect(pod())) ?? assert.fail("netlink works here");
    assert.deepEqual(readNetns(read, "test"), readNetns(printed, "test"));
  });

  it("of the way to a VM", async () => {
    assert.deepEqual(await network.path("10.9.9.9"), { local: false, source: "10.1.0.1", mtu: 1500 });
    assert.equal((await network.path("10.1.0.1"))?.local, true);
    assert.equal(await network.path("fd09::9"), undefined, "there is none");
  });

  it("of a tunnel, which is made without a program; what is there already is left to others", async () => {
    const link = { podInterface: "eth0", mtu: 1450, vni: 777_001 };
    const ends = { local: "10.1.0.1", remote: "10.9.9.9", port: 4790 };
    assert.equal(await network.reserve(pod(), [777_001], 4790), "made");
    assert.equal(await network.reserve(pod(), [777_001], 4790), "made", "again");
    assert.equal(await network.attach(pod(), [link], ends), "made");
    assert.match(
      await spaces.ip("pod", "-d link show kr-vx0"),
      /mtu 1450 .*777001 remote 10\.9\.9\.9 local 10\.1\.0\.1/s,
    );
    for (const [from, to] of [
      ["eth0", "kr-vx0"],
      ["kr-vx0", "eth0"],
    ] as const)
      assert.match(
        await spaces.run("pod", "tc", ["filter", "show", "dev", from, "ingress"]),
        new RegExp(`match 00000000/00000000 at 0[^]*Egress Redirect to device ${to}\\) stolen`),
      );
    assert.equal(await network.attach(pod(), [link], ends), undefined);
    await spaces.add("other");
    await assert.rejects(network.reserve(spaces.path("other"), [777_001], 4790), VniInUse);
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type IpLink, type IpRoute, type NetnsOutput, readNetns } from "./read-netns.ts";

const FOREVER = { valid_life_time: 4294967295, preferred_life_time: 4294967295 };

/** As iproute2 6.1 prints it. */
function link(ifname: string, change: Partial<IpLink> = {}): IpLink {
  return {
    ...{ ifname, flags: ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], mtu: 1500, link_type: "ether" },
    ...{ address: "0A:E8:EE:14:E9:19", linkinfo: { info_kind: "veth" }, addr_info: [] },
    ...change,
  };
}

const address = (local: string, prefixlen: number, scope = "global") => ({
  ...{ family: local.includes(":") ? "inet6" : "inet", local, prefixlen, scope },
  ...FOREVER,
});

const LO = link("lo", {
  flags: ["LOOPBACK", "UP", "LOWER_UP"],
  link_type: "loopback",
  addr_info: [address("127.0.0.1", 8, "host"), address("::1", 128, "host")],
});

function read(change: Partial<NetnsOutput>) {
  return readNetns({ links: [LO], routes4: [], routes6: [], neighbours: [], ...change }, "netns x");
}

describe("a namespace that a CNI made", () => {
  it("of EKS's default one: an address alone, a gateway outside of it, its permanent neighbour", () => {
    const netns = read({
      links: [
        LO,
        link("eth0", { mtu: 9001, addr_info: [address("192.168.30.18", 32), address("fe80::8", 64, "link")] }),
      ],
      routes4: [
        { type: "1", dst: "default", gateway: "169.254.1.1", dev: "eth0", protocol: "3", scope: "0", flags: [] },
        { type: "1", dst: "169.254.1.1", dev: "eth0", protocol: "3", scope: "253", flags: [] },
      ],
      neighbours: [{ dst: "169.254.1.1", dev: "eth0", lladdr: "BE:AA:00:00:00:01", state: ["PERMANENT"] }],
    });
    assert.deepEqual(netns, {
      interfaces: [
        {
          name: "eth0",
          mac: "0a:e8:ee:14:e9:19",
          mtu: 9001,
          addresses: [
            { address: "192.168.30.18", prefixLength: 32 },
            { address: "fe80::8", prefixLength: 64 },
          ],
        },
      ],
      routes: [
        { destination: "0.0.0.0/0", device: "eth0", gateway: "169.254.1.1", scope: 0, protocol: 3 },
        { destination: "169.254.1.1/32", device: "eth0", scope: 253, protocol: 3 },
      ],
      neighbours: [{ address: "169.254.1.1", mac: "be:aa:00:00:00:01", device: "eth0" }],
    });
  });

  it("of several interfaces: metrics, sources, onlink and gateways of the other family stay", () => {
    const netns = read({
      links: [
        LO,
        link("eth0", { addr_info: [address("10.244.1.5", 24), address("fd00:10::5", 64)] }),
        link("net1", { addr_info: [address("fd00:20::5", 64)] }),
        link("down0", { flags: ["BROADCAST"], addr_info: [address("10.9.0.1", 24)] }),
        link("bare0"),
        link("kr-vx0", { addr_info: [address("10.8.0.1", 24)] }),
      ],
      routes4: [
        { dst: "default", gateway: "10.244.1.1", dev: "eth0", protocol: "boot", metric: 50, flags: [] },
        { dst: "10.244.0.0/16", gateway: "10.7.7.7", dev: "eth0", prefsrc: "10.244.1.5", flags: ["onlink"] },
        { dst: "10.78.0.0/16", via: { family: "inet6", host: "fe80::1" }, dev: "eth0", flags: [] },
        { dst: "10.79.0.0/16", dev: "eth0", scope: "link", metrics: [{ mtu: 1400 }, { advmss: 1300 }], flags: [] },
        { type: "6", dst: "10.99.0.0/16", flags: [] },
        { dst: "10.9.0.0/24", dev: "down0", flags: ["linkdown"] },
      ],
      routes6: [
        { type: "1", dst: "default", gateway: "fd00:20::1", dev: "net1", protocol: "3", metric: 1024, flags: [] },
        { type: "1", dst: "default", gateway: "fe80::1", dev: "net1", protocol: "9", metric: 1024, flags: [] },
      ],
    });
    assert.deepEqual(
      netns?.interfaces.map((i) => i.name),
      ["eth0", "net1"],
    );
    assert.deepEqual(netns?.routes, [
      { destination: "0.0.0.0/0", device: "eth0", gateway: "10.244.1.1", metric: 50, protocol: 3 },
      { destination: "10.244.0.0/16", device: "eth0", gateway: "10.7.7.7", source: "10.244.1.5", onlink: true },
      { destination: "10.78.0.0/16", device: "eth0", gateway: "fe80::1" },
      { destination: "10.79.0.0/16", device: "eth0", scope: 253, mtu: 1400, advmss: 1300 },
      { destination: "::/0", device: "net1", gateway: "fd00:20::1", metric: 1024, protocol: 3 },
    ]);
  });

  it("of nothing is no network", () => {
    assert.equal(read({}), undefined);
    assert.equal(read({ links: [LO, link("eth0", { addr_info: [address("fe80::8", 64, "link")] })] }), undefined);
  });

  it("of what cannot be carried over is refused by name", () => {
    const links = [LO, link("eth0", { addr_info: [address("10.0.0.2", 24)] })];
    const multipath: IpRoute = { dst: "10.1.0.0/16", nexthops: [{}, {}], flags: [] };
    assert.throws(() => read({ links, routes4: [multipath] }), {
      code: "failed_precondition",
      message: /netns x: the route to 10\.1\.0\.0\/16 has several next hops/,
    });
    const tunnel = link("wg0", { link_type: "none", addr_info: [address("10.0.0.2", 24)] });
    assert.throws(() => read({ links: [tunnel] }), { message: /interface wg0 is not an Ethernet one \(none\)/ });
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { PodNetns } from "./plan.ts";
import { lostInStockNetwork, stockInterface, toStockNetwork } from "./stock-network.ts";

const eth0 = {
  name: "eth0",
  mac: "02:00:00:00:00:01",
  mtu: 1500,
  addresses: [{ address: "10.0.0.2", prefixLength: 24 }],
};
const netns: PodNetns = {
  interfaces: [eth0],
  routes: [
    { destination: "10.0.0.0/24", device: "eth0", scope: 253, protocol: 2 },
    { destination: "0.0.0.0/0", device: "eth0", gateway: "10.0.0.1" },
  ],
  neighbours: [],
};
const facts = {
  ...{ workerAddress: "192.0.2.1/24", port: 4789, vni: 1, index: 0 },
  ...{ dedicated: false, externalViaVm: false, podSubnets: [] },
};

describe("the network that a stock forwarder is told", () => {
  it("has routes in the kernel's order, words for numbers, and gw always", () => {
    const routes = [
      ...netns.routes,
      { destination: "10.1.0.0/16", device: "eth0", gateway: "10.0.0.1", protocol: 4 },
      { destination: "169.254.1.1/32", device: "eth0", scope: 253, protocol: 16 },
      { destination: "10.2.0.0/16", device: "eth0", gateway: "10.0.0.1", protocol: 186 }, // BGP: not sent
      { destination: "::/0", device: "eth0", gateway: "fe80::1" },
    ];
    assert.deepEqual(toStockNetwork({ ...netns, routes }, facts).routes, [
      { dst: "0.0.0.0/0", gw: "10.0.0.1", dev: "eth0", protocol: "boot" },
      { dst: "10.0.0.0/24", gw: "", dev: "eth0", protocol: "kernel", scope: "link" },
      { dst: "10.1.0.0/16", gw: "10.0.0.1", dev: "eth0", protocol: "static" },
      { dst: "169.254.1.1/32", gw: "", dev: "eth0", protocol: "dhcp", scope: "link" },
    ]);
  });

  it("cannot be made of a namespace without a default route, or with two addresses", () => {
    assert.throws(() => stockInterface({ ...netns, routes: [] }), /no default IPv4 route/);
    const two = { ...eth0, addresses: [...eth0.addresses, { address: "10.0.0.3", prefixLength: 24 }] };
    assert.throws(() => stockInterface({ ...netns, interfaces: [two] }), /2 IPv4 addresses/);
  });

  it("is said to lack what it cannot carry: IPv6, further interfaces, metrics", () => {
    assert.deepEqual(lostInStockNetwork(netns), []);
    const more: PodNetns = {
      interfaces: [
        { ...eth0, addresses: [...eth0.addresses, { address: "fd00::2", prefixLength: 64 }] },
        { ...eth0, name: "net1" },
      ],
      routes: [...netns.routes, { destination: "10.3.0.0/16", device: "eth0", metric: 5 }],
      neighbours: [],
    };
    const lost = lostInStockNetwork(more);
    assert.equal(lost.length, 3);
    assert.match(lost.join("; "), /fd00::2.*net1.*metric/);
  });
});

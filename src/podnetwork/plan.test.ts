import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parsePlan } from "./plan.ts";

const good = {
  version: 1,
  tunnel: { kind: "vxlan", port: 4789, workerAddress: "192.0.2.1", vnis: [7] },
  interfaces: [
    { name: "eth0", mac: "02:00:00:00:00:01", mtu: 1450, addresses: [{ address: "10.0.0.2", prefixLength: 24 }] },
  ],
  routes: [{ destination: "0.0.0.0/0", device: "eth0", gateway: "10.0.0.1" }],
  neighbours: [{ address: "10.0.0.1", mac: "02:00:00:00:00:02", device: "eth0" }],
};

const wireguard = {
  ...{ kind: "wireguard", port: 4789, workerAddress: "192.0.0.2", guestAddress: "192.0.0.3", vnis: [1] },
  ...{ listenPort: 51_820, workerKey: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=", linkMtu: 1440 },
};

describe("a plan from the wire", () => {
  it("is taken as it is", () => {
    assert.deepEqual(parsePlan(good, "plan"), good);
    assert.deepEqual(parsePlan({ ...good, tunnel: wireguard }, "plan"), { ...good, tunnel: wireguard });
  });

  const [eth0] = good.interfaces;
  const [route] = good.routes;
  const [neighbour] = good.neighbours;
  for (const [what, change, message] of [
    ["a name that is two words", { interfaces: [{ ...eth0, name: "a b" }] }, /interfaces\.0\.name/],
    ["a name that is two lines", { interfaces: [{ ...eth0, name: "a\nb" }] }, /interfaces\.0\.name/],
    ["a name twice", { interfaces: [eth0, eth0] }, /interfaces \(names\)/],
    ["a hardware address", { interfaces: [{ ...eth0, mac: "02:00" }] }, /interfaces\.0\.mac/],
    [
      "an address",
      { interfaces: [{ ...eth0, addresses: [{ address: "10.0.0", prefixLength: 8 }] }] },
      /address of eth0/,
    ],
    [
      "a length",
      { interfaces: [{ ...eth0, addresses: [{ address: "10.0.0.1", prefixLength: 33 }] }] },
      /address of eth0/,
    ],
    ["a destination", { routes: [{ ...route, destination: "10.0.0.0/8 dev lo" }] }, /destination of a route/],
    ["a gateway", { routes: [{ ...route, gateway: "10.0.0.1\nlink" }] }, /gateway of the route/],
    ["a source", { routes: [{ ...route, source: "x1" }] }, /source of the route/],
    ["a device that is not there", { routes: [{ ...route, device: "eth1" }] }, /no such interface/],
    ["a neighbour", { neighbours: [{ ...neighbour, address: "host" }] }, /address of a neighbour/],
    ["a neighbour's device", { neighbours: [{ ...neighbour, device: "eth1" }] }, /no such interface/],
    ["the worker", { tunnel: { ...good.tunnel, workerAddress: "worker" } }, /tunnel\.workerAddress/],
    ["too few numbers", { interfaces: [eth0, { ...eth0, name: "net1" }] }, /one for each interface/],
    ["a number of 25 bits", { tunnel: { ...good.tunnel, vnis: [1 << 24] } }, /tunnel\.vnis/],
    ["a key that is none", { tunnel: { ...wireguard, workerKey: "AAAA" } }, /tunnel/],
    ["the guest's end", { tunnel: { ...wireguard, guestAddress: "fd00::3" } }, /tunnel\.guestAddress/],
    ["no key", { tunnel: { ...wireguard, workerKey: undefined } }, /tunnel/],
    ["a tunnel of the future", { tunnel: { kind: "carrier pigeon" } }, /tunnel/],
    ["a version of the future", { version: 2 }, /version/],
  ] as const) {
    it(`is refused for ${what}, by the field's name`, () => {
      assert.throws(() => parsePlan({ ...good, ...change }, "plan"), { code: "invalid_argument", message });
    });
  }
});

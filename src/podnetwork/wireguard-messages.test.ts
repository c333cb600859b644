import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeAttributes, text, u16 } from "./netlink-messages.ts";
import { familyRequest, getDeviceRequest, readDevice, readFamilyId, setDeviceRequest } from "./wireguard-messages.ts";

const bytes = (first: number): Buffer => Buffer.from(Array.from({ length: 32 }, (_, i) => first + i));
const PRIVATE = bytes(0).toString("base64");
const PUBLIC = bytes(0x40).toString("base64");
const device = { ifname: "kr-wg0", privateKey: PRIVATE, listenPort: 51_820 };

/** The expected bytes are from a C program over Linux 6.1's include/uapi/linux/{netlink,genetlink,wireguard}.h. */
describe("WireGuard's generic netlink family", () => {
  it("is asked for by its name", () => {
    assert.equal(familyRequest().toString("hex"), "030100000e000200776972656775617264000000");
    const header = Buffer.from([1, 2, 0, 0]);
    const answer = encodeAttributes([
      [2, text("wireguard")],
      [1, u16(0x1d)],
    ]);
    assert.equal(readFamilyId(Buffer.concat([header, answer])), 0x1d);
    assert.equal(readFamilyId(header), undefined);
  });

  it("is asked what a link is like", () => {
    assert.equal(getDeviceRequest("kr-wg0").toString("hex"), "000100000b0002006b722d7767300000");
    const header = Buffer.from([0, 1, 0, 0]);
    const answer = encodeAttributes([
      [2, text("kr-wg0")],
      [3, bytes(0)],
    ]);
    assert.deepEqual(readDevice(Buffer.concat([header, answer])), { privateKey: PRIVATE });
    assert.deepEqual(readDevice(header), {});
  });

  it("is told keys, port and a peer over IPv4", () => {
    const endpoint = { address: "203.0.113.9", port: 4789 };
    const peer = { publicKey: PUBLIC, endpoint, allowedAddress: "192.0.0.3", keepAliveSeconds: 25 };
    const expected = [
      "010100000b0002006b722d776730000024000300000102030405060708090a0b0c0d0e0f101112131415161718191a1b",
      "1c1d1e1f060006006cca00000800050001000000700008806c00008024000100404142434445464748494a4b4c4d4e4f",
      "505152535455565758595a5b5c5d5e5f080003000200000014000400020012b5cb007109000000000000000006000500",
      "19000000200009801c000080060001000200000008000200c00000030500030020000000",
    ].join("");
    assert.equal(setDeviceRequest({ ...device, peers: [peer] }).toString("hex"), expected);
  });

  it("is told keys, port and a peer over IPv6", () => {
    const endpoint = { address: "2001:db8::9", port: 4789 };
    const peer = { publicKey: PUBLIC, endpoint, allowedAddress: "fd00::3", keepAliveSeconds: 25 };
    const expected = [
      "010100000b0002006b722d776730000024000300000102030405060708090a0b0c0d0e0f101112131415161718191a1b",
      "1c1d1e1f060006006cca00000800050001000000880008808400008024000100404142434445464748494a4b4c4d4e4f",
      "505152535455565758595a5b5c5d5e5f0800030002000000200004000a0012b50000000020010db80000000000000000",
      "000000090000000006000500190000002c00098028000080060001000a00000014000200fd0000000000000000000000",
      "000000030500030080000000",
    ].join("");
    assert.equal(setDeviceRequest({ ...device, peers: [peer] }).toString("hex"), expected);
  });

  it("is told no more than there is to tell", () => {
    const set = setDeviceRequest({ ifname: "kr-wg0", peers: [] });
    assert.equal(set.toString("hex"), "010100000b0002006b722d77673000000800050001000000");
  });
});

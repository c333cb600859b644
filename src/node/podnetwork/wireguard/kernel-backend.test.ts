import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { background } from "../../../base/call.ts";
import { Fault } from "../../../base/fault.ts";
import { encodeAttributes, familyRequest, readAttributes, setDeviceRequest, u16 } from "../../../podnetwork/index.ts";
import { NetlinkError } from "../netlink/index.ts";
import { KernelBackend } from "./kernel-backend.ts";

const FAMILY = 0x1d;
const ENODEV = 19;
const NETNS = "/run/netns/pod";
const PLACE = { sandboxId: "s", netnsPath: NETNS };
const key = (first: number): string => Buffer.alloc(32, first).toString("base64");
const header = Buffer.alloc(4);

/** As a kernel with WireGuard answers: what it is told is in `calls`, in order. */
function kernel(existing: string | undefined) {
  const calls: string[] = [];
  let device = existing;
  const socket = {
    get(type: number, body: Buffer): Buffer {
      assert.deepEqual([type, body], [0x10, familyRequest()]);
      return Buffer.concat([header, encodeAttributes([[1, u16(FAMILY)]])]);
    },
    change(type: number, flags: number, body: Buffer): void {
      assert.deepEqual([type, flags], [FAMILY, 0]);
      calls.push(`set ${body.toString("hex")}`);
      device = readAttributes(body.subarray(4)).get(3)?.toString("base64") ?? device;
    },
    dump(type: number): readonly Buffer[] {
      assert.equal(type, FAMILY);
      if (device === undefined) throw new NetlinkError("dump", ENODEV);
      return [Buffer.concat([header, encodeAttributes([[3, Buffer.from(device, "base64")]])])];
    },
    [Symbol.dispose](): void {
      calls.push("close");
    },
  };
  const commands = {
    reachable: async (path: string) => path,
    host: async (command: string, args: readonly string[]) => {
      calls.push(["host", command, ...args].join(" "));
      return "";
    },
    pod: async (_path: string, command: string, args: readonly string[]) => {
      calls.push(["pod", command, ...args].join(" "));
      if (device === undefined) throw new Fault("internal", "ip ended with exit 1: Cannot find device");
      device = undefined;
      return "";
    },
  };
  const open = async (netns: string) => {
    assert.equal(netns, NETNS);
    return socket;
  };
  return { backend: new KernelBackend({ commands, open }), calls };
}

const DELETE = "pod ip link delete kr-wg0";
const ADD = "host ip link add name kr-wg0 netns /run/netns/pod type wireguard";
const set = (privateKey: string): string =>
  `set ${setDeviceRequest({ ifname: "kr-wg0", privateKey, peers: [] }).toString("hex")}`;

describe("a link of the host kernel's WireGuard", () => {
  it("is made in the pod's namespace with its socket in the host's, and keyed", async () => {
    const { backend, calls } = kernel(undefined);
    await backend.ensure(PLACE, key(1), background());
    assert.deepEqual(calls, [DELETE, ADD, set(key(1)), "close"]);
    calls.length = 0;
    await backend.ensure(PLACE, key(1), background());
    assert.deepEqual(calls, ["close"], "a second time it is left as it is");
  });

  it("is made anew when it has another key", async () => {
    const { backend, calls } = kernel(key(2));
    await backend.ensure(PLACE, key(1), background());
    assert.deepEqual(calls, [DELETE, ADD, set(key(1)), "close"]);
  });

  it("gets its peer, which replaces another one", async () => {
    const { backend, calls } = kernel(key(1));
    const peer = { publicKey: key(3), endpoint: { address: "192.0.2.7", port: 4789 }, allowedAddress: "192.0.0.3" };
    await backend.setPeer(PLACE, peer);
    assert.deepEqual(calls, [`set ${setDeviceRequest({ ifname: "kr-wg0", peers: [peer] }).toString("hex")}`, "close"]);
  });

  it("is removed, and one that is gone is success", async () => {
    const { backend, calls } = kernel(key(1));
    await backend.remove(PLACE, background());
    await backend.remove(PLACE, background());
    assert.deepEqual(calls, [DELETE, DELETE]);
  });
});

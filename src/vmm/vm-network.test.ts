import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import { background } from "../base/call.ts";
import { silentLogger } from "../base/log.ts";
import { VmNetwork } from "./vm-network.ts";

const capable = process.getuid?.() === 0 && existsSync("/dev/net/tun");
const options = { bridge: "krtest0", subnet: "10.9.8.0/24", outbound: false, owner: "test", log: silentLogger() };

describe("the network of VMs", () => {
  it("is user-mode when that is asked for, and nothing is made", async () => {
    const network = new VmNetwork({ ...options, network: "user" });
    const kept: unknown[] = [];
    const taken = () => assert.fail("no address is needed");
    const keep = (tap: unknown) => void kept.push(tap);
    assert.equal(await network.assign({ taken, keep }, background()).catch((e: unknown) => e), undefined);
    assert.deepEqual(kept, [undefined]);
    await network.release(() => false);
  });

  it("is tap where the host can do that", { skip: capable ? false : "needs root and /dev/net/tun" }, async () => {
    assert.deepEqual(await new VmNetwork({ ...options, network: "tap" }).verdict(), {
      works: true,
      detail: "bridge and tap devices can be made",
    });
  });
});

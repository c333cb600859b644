import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, it } from "node:test";
import { HostBridge } from "./host-bridge.ts";

const skip = process.getuid?.() === 0 ? false : "needs root";

describe("a bridge's addresses", () => {
  it("are given out once, and come round late", () => {
    const bridge = new HostBridge({ name: "b", subnet: "10.9.8.77/29", owner: "o" });
    assert.equal(bridge.address, "10.9.8.73");
    const taken = new Set<string>();
    const next = (): string => {
      const address = bridge.free(taken);
      taken.add(address);
      return address;
    };
    assert.deepEqual([next(), next()], ["10.9.8.74", "10.9.8.75"]);
    taken.delete("10.9.8.74");
    assert.deepEqual([next(), next(), next(), next()], ["10.9.8.76", "10.9.8.77", "10.9.8.78", "10.9.8.74"]);
    assert.throws(next, { code: "resource_exhausted" });
  });

  it("must be an IPv4 network", () => {
    for (const subnet of ["10.0.0.0", "10.0.0.0/31", "fd00::/64", "10.0.0.0/x"])
      assert.throws(() => new HostBridge({ name: "b", subnet, owner: "o" }), { code: "invalid_argument" });
  });
});

describe("a bridge, in a network namespace of its own", { skip }, () => {
  /** Runs statements in there; they get `bridge()` and `ip()`, and print. */
  function inside(statements: string): string {
    const program = `
      import { execFileSync } from "node:child_process";
      import { HostBridge } from ${JSON.stringify(join(import.meta.dirname, "host-bridge.ts"))};
      const call = { signal: new AbortController().signal };
      const ip = (words) => execFileSync("ip", words.split(" "), { encoding: "utf8" });
      const bridge = (change = {}) => new HostBridge({ name: "krb0", subnet: "10.9.8.0/24", owner: "me", ...change });
      const refused = async (work) => { try { await work; console.log("done"); } catch (e) { console.log(e.message); } };
      ${statements}`;
    const args = ["--net", process.execPath, "--input-type=module", "--eval", program];
    const { status, stdout, stderr } = spawnSync("unshare", args, { encoding: "utf8", timeout: 30_000 });
    assert.equal(status, 0, stderr);
    return stdout;
  }

  it("is made, made again, and removed when nothing hangs on it", () => {
    const seen = inside(`
      await bridge().ensure(call);
      await bridge().ensure(call);
      console.log(ip("-o -4 address show dev krb0").match(/inet (\\S+)/)[1]);
      ip("link add name t type veth peer name u");
      ip("link set dev t master krb0");
      await bridge().remove(call);
      console.log(ip("-o link show master krb0").includes("t@u"));
      ip("link delete dev t");
      await bridge({ owner: "you" }).remove(call);
      console.log(ip("-o link show").includes("krb0"));
      await bridge().remove(call);
      await bridge().remove(call);
      console.log(ip("-o link show").includes("krb0"));`);
    assert.equal(seen, "10.9.8.1/24\ntrue\ntrue\nfalse\n");
  });

  it("takes nobody's name or addresses", () => {
    const seen = inside(`
      await bridge().ensure(call);
      await refused(bridge({ owner: "you" }).ensure(call));
      ip("link add name other type bridge");
      ip("link set other up");
      await refused(bridge({ name: "other" }).ensure(call));
      await refused(bridge({ name: "krb1", subnet: "10.9.0.0/16" }).ensure(call));
      await refused(bridge({ name: "krb1", subnet: "10.9.8.128/25" }).ensure(call));
      await refused(bridge({ name: "krb1", subnet: "10.9.9.0/24" }).ensure(call));`);
    const lines = seen.trim().split("\n");
    assert.match(lines[0] ?? "", /interface krb0 belongs to kata-remote me/);
    assert.match(lines[1] ?? "", /interface other belongs to somebody else/);
    assert.match(lines[2] ?? "", /10\.9\.0\.0\/16 overlaps with 10\.9\.8\.0\/24, which this host reaches through krb0/);
    assert.match(lines[3] ?? "", /overlaps/);
    assert.equal(lines[4], "done");
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseConfig } from "../../../base/config.ts";
import { StoreConfig } from "../store-config.ts";
import { RedisTarget } from "./redis-target.ts";

async function optionsOf(config: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
  const target = await RedisTarget.read(parseConfig(StoreConfig, { kind: "redis", ...config }, "x"));
  const client = target.client("bounded");
  client.disconnect();
  return { ...(client.options as unknown as Record<string, unknown>), address: target.address };
}

describe("redis target", () => {
  it("reads an address as people write it, and shows it without the password", async () => {
    const { host, port, db, username, password, address } = await optionsOf({
      url: "redis://me:s%20x@db.local:7000/3",
    });
    assert.deepEqual([host, port, db, username, password], ["db.local", 7000, 3, "me", "s x"]);
    assert.equal(address, "redis://db.local:7000/3");
    const ipv6 = await optionsOf({ url: "rediss://[::1]" });
    assert.deepEqual([ipv6.host, ipv6.port, typeof ipv6.tls], ["::1", 6379, "object"]);
    assert.equal((await optionsOf({ url: "unix:///run/redis%20a.sock", db: 2 })).path, "/run/redis a.sock");
    assert.equal((await optionsOf({ url: "redis://h/3", db: 2 })).db, 2, "the key wins");
  });

  it("bounds a store's commands, never sends them twice, and lets the queue's wait", async () => {
    const bounded = await optionsOf({ url: "redis://h", timeoutMs: 700 });
    assert.deepEqual(
      [bounded.commandTimeout, bounded.autoResendUnfulfilledCommands, bounded.maxRetriesPerRequest],
      [700, false, 20],
    );
    const target = await RedisTarget.read(parseConfig(StoreConfig, { kind: "redis", url: "redis://h" }, "x"));
    const patient = target.client("patient");
    patient.disconnect();
    const { commandTimeout, maxRetriesPerRequest } = patient.options as { [key: string]: unknown };
    assert.deepEqual([commandTimeout, maxRetriesPerRequest], [undefined, null]);
  });

  it("names the file that it cannot read", async () => {
    await assert.rejects(optionsOf({ url: "redis://h", passwordFile: "/nowhere/password" }), {
      code: "invalid_argument",
      message: /store\.passwordFile: \/nowhere\/password cannot be read/,
    });
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseConfig } from "../../base/config.ts";
import { checkStoreConfig, StoreConfig } from "./store-config.ts";

function check(input: unknown): void {
  checkStoreConfig(parseConfig(StoreConfig, input, "adaptor.toml"));
}

describe("configuration of the store", () => {
  it("is embedded when nothing is said, and takes every way to a redis", () => {
    check({});
    check({ kind: "redis", url: "redis://localhost:6379/2" });
    check({ kind: "redis", url: "unix:///run/redis.sock", db: 1, username: "u", passwordFile: "/p" });
    check({ kind: "redis", sentinels: { name: "main", nodes: ["a:1", "[::1]:2"] }, tls: { caFile: "/ca" } });
    check({ kind: "redis", cluster: { nodes: ["a:1"] }, prefix: "mine" });
  });

  it("is refused with the key and what to do", () => {
    const cases: [unknown, RegExp][] = [
      [{ url: "redis://x" }, /store\.url is for Redis: set store\.kind = "redis"/],
      [{ kind: "redis" }, /needs one of store\.url \(or REDIS_URL\).*none is given/],
      [{ kind: "redis", url: "redis://x", cluster: { nodes: ["a:1"] } }, /url and cluster are given/],
      [{ kind: "redis", url: "http://x" }, /url/],
      [{ kind: "redis", cluster: { nodes: ["a:1"] }, db: 3 }, /store\.db is 3: a cluster has 0 only/],
      [{ kind: "redis", cluster: { nodes: ["a"] } }, /cluster\.nodes/],
      [
        { kind: "redis", url: "redis://x", tls: { certFile: "/c" } },
        /certFile and store\.tls\.keyFile need each other/,
      ],
      [{ kind: "redis", url: "unix:///x", tls: {} }, /a unix socket has no TLS/],
      [{ kind: "redis", url: "redis://x", password: "p" }, /unknown key "password"/],
      [{ kind: "mysql" }, /kind/],
    ];
    for (const [input, message] of cases) {
      assert.throws(() => check(input), { code: "invalid_argument", message }, JSON.stringify(input));
    }
  });
});

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parseChallenges } from "./challenge.ts";
import { loginFor, readAuthFile } from "./credentials.ts";
import { parseReference } from "./reference.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

describe("an image reference", () => {
  it("has host, repository, tag and digest", () => {
    const parts = (text: string): unknown[] => {
      const { registry, repository, tag, digest } = parseReference(text);
      return [registry, repository, tag, digest];
    };
    assert.deepEqual(parts("busybox"), ["docker.io", "library/busybox", "latest", undefined]);
    assert.deepEqual(parts("team/app:1"), ["docker.io", "team/app", "1", undefined]);
    assert.deepEqual(parts("docker.io/busybox:1.36"), ["docker.io", "library/busybox", "1.36", undefined]);
    assert.deepEqual(parts("localhost/a/b"), ["localhost", "a/b", "latest", undefined]);
    assert.deepEqual(parts("r.example.com:5000/a:1"), ["r.example.com:5000", "a", "1", undefined]);
    assert.deepEqual(parts(`[::1]:5000/a@${DIGEST}`), ["[::1]:5000", "a", undefined, DIGEST]);
    assert.deepEqual(parts(`r.io/a:1@${DIGEST}`), ["r.io", "a", "1", DIGEST]);
  });

  it("that is none is refused by what is wrong", () => {
    const wrong = { code: "invalid_argument" };
    for (const text of [
      "",
      DIGEST,
      "a".repeat(64),
      "r.io/UPPER",
      "r.io/a:",
      "r.io/a:t/../x",
      "r.io/../a",
      "r.io/a@sha256:1",
    ])
      assert.throws(() => parseReference(text), wrong, text);
    assert.throws(() => parseReference(`r.io/a@md5:${"a".repeat(32)}`), { code: "unimplemented" });
  });
});

describe("a login", () => {
  const login = (user: string) => ({ auth: Buffer.from(`${user}:p:w`).toString("base64") });
  const userFor = (auths: Record<string, object>, image: string): unknown => {
    const found = loginFor(auths, parseReference(image));
    return found?.kind === "basic" ? found.username : found?.kind;
  };

  it("is that of the registry, the longest path first", () => {
    const auths = { "r.io": login("all"), "r.io/team": login("team"), "https://r.io/v1/": login("url") };
    assert.equal(userFor(auths, "r.io/team/app"), "team");
    assert.equal(userFor(auths, "r.io/teamwork/app"), "all");
    assert.equal(userFor(auths, "other.io/team/app"), undefined);
    assert.equal(userFor({ "*.r.io": login("any") }, "a.r.io/x"), "any");
    assert.equal(userFor({ "*.r.io": login("any") }, "a.b.r.io/x"), undefined);
    assert.equal(userFor({ "https://index.docker.io/v1/": login("hub") }, "busybox"), "hub");
    assert.equal(userFor({ "r.io": { identitytoken: "t" } }, "r.io/x"), "refresh");
    assert.equal(userFor({ "r.io": {} }, "r.io/x"), undefined);
    assert.deepEqual(loginFor({ "r.io": login("u") }, parseReference("r.io/x")), {
      kind: "basic",
      username: "u",
      password: "p:w",
    });
    assert.throws(() => userFor({ "r.io": { auth: "no colon" } }, "r.io/x"), /entry for "r.io" is not base64/);
  });

  it("may come from a file, which need not be there", () => {
    const dir = mkdtempSync(join(tmpdir(), "auth-"));
    try {
      assert.deepEqual(readAuthFile(join(dir, "none")), {});
      writeFileSync(join(dir, "auth.json"), JSON.stringify({ auths: { a: { auth: "x" } } }));
      assert.deepEqual(readAuthFile(join(dir, "auth.json")), { a: { auth: "x" } });
      for (const [text, wanted] of [
        ["", {}],
        ["{}", {}],
      ] as const) {
        writeFileSync(join(dir, "auth.json"), text);
        assert.deepEqual(readAuthFile(join(dir, "auth.json")), wanted);
      }
      writeFileSync(join(dir, "auth.json"), "{");
      assert.throws(() => readAuthFile(join(dir, "auth.json")), /is not JSON/);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

describe("a registry's challenge", () => {
  it("is read with quotes, commas and several in one header", () => {
    assert.deepEqual(parseChallenges('Bearer realm="https://a/t",service="x, \\"y\\"",scope="repository:a:pull"'), [
      { scheme: "bearer", parameters: { realm: "https://a/t", service: 'x, "y"', scope: "repository:a:pull" } },
    ]);
    assert.deepEqual(
      parseChallenges('Negotiate, BASIC realm=here, Bearer realm="r"').map((c) => [c.scheme, c.parameters.realm]),
      [
        ["negotiate", undefined],
        ["basic", "here"],
        ["bearer", "r"],
      ],
    );
    assert.deepEqual(parseChallenges(""), []);
    assert.deepEqual(parseChallenges('Bearer realm="unfinished').length, 1);
    assert.deepEqual(parseChallenges('=,;"').length, 0);
  });
});

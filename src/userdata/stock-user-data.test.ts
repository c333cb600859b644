import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { renderAuthJson } from "./auth-json.ts";
import { decodeInitdata, encodeInitdata } from "./initdata.ts";
import { renderStockUserData, type StockUserData } from "./stock-user-data.ts";

const TOML = 'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n"aa.toml" = ""\n';
const data: StockUserData = { podNetwork: {}, pod: { namespace: "d", name: "p" }, scratchSpace: false };

describe("initdata", () => {
  it("is packed again without a change of its bytes", async () => {
    const encoded = await encodeInitdata(TOML);
    assert.equal(encoded.length % 4, 0, "padded");
    assert.equal(gunzipSync(Buffer.from(encoded, "base64")).toString(), TOML);
    assert.equal(encoded, await encodeInitdata(TOML), "the same each time");
    assert.equal(decodeInitdata(encoded), TOML);
  });

  for (const [what, toml, problem] of [
    ["no TOML", "a = = b", /not TOML/],
    ["an algorithm that nobody has", TOML.replace("sha256", "md5"), /algorithm is "md5"/],
    ["no version", TOML.replace(/version.*\n/, ""), /version is missing/],
    ["no data", 'algorithm = "sha256"\nversion = "0.1.0"\n', /no table \[data\]/],
    ["a number in its data", `${TOML}x = 1\n`, /data\."x" is not a string/],
    ["no aa.toml, on which the boot waits", TOML.replace("aa.toml", "cdh.toml"), /has no "aa\.toml"/],
  ] as const) {
    it(`is refused for ${what}`, async () => {
      await assert.rejects(encodeInitdata(toml), { code: "invalid_argument", message: problem });
    });
  }

  it("of the annotation's form is refused when it is not base64 of gzip, or too large", () => {
    assert.throws(() => decodeInitdata("hello"), /not base64 of gzip/);
    assert.throws(() => decodeInitdata(gzipSync(Buffer.alloc(5 << 20)).toString("base64")), /not base64 of gzip/);
  });
});

describe("auth.json", () => {
  const auth = Buffer.from("u:p").toString("base64");
  const secret = (content: object, type = "kubernetes.io/dockerconfigjson") => ({
    ...{ name: "s", type },
    content: JSON.stringify(content),
  });

  it("has user and password folded, both forms of secret, and the later secret's word", () => {
    const text = renderAuthJson([
      secret({ auths: { "a.test": { auth: "old" }, "b.test": { username: "u", password: "p", email: "x" } } }),
      secret({ "a.test": { auth } }, "kubernetes.io/dockercfg"),
      secret({ auths: { "c.test": { email: "nothing" } } }),
    ]);
    assert.deepEqual(JSON.parse(text ?? ""), { auths: { "a.test": { auth }, "b.test": { auth } } });
    assert.equal(renderAuthJson([secret({ auths: {} })]), undefined);
  });

  it("names a secret that is broken, and does not drop what is too large", () => {
    assert.throws(() => renderAuthJson([{ name: "bad", type: "x", content: "{" }]), /pull secret bad is not JSON/);
    assert.throws(() => renderAuthJson([secret({ x: 1 })]), /has no table of registries/);
    const many = {
      auths: Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`r${i}.test`, { auth: "x".repeat(40) }])),
    };
    assert.throws(() => renderAuthJson([secret(many)]), { code: "resource_exhausted", message: /12288/ });
  });
});

describe("the size of user-data", () => {
  const big = (bytes: number): StockUserData => ({ ...data, initdata: "A".repeat(bytes) });

  it("is held against each cloud's limit, with the sizes of its parts in the message", () => {
    for (const [provider, fits, breaks] of [
      ["aws", 15_500, 16_500],
      ["azure", 48_000, 50_000],
      ["gcp", 190_000, 200_000],
      ["alibabacloud", 32_000, 33_000],
      ["ibmcloud", 65_000, 66_000],
      ["local", 260_000, 265_000],
    ] as const) {
      assert.ok(renderStockUserData(big(fits), provider).length > fits, provider);
      const problem = new RegExp(`provider ${provider} takes .*apf\\.json \\d+, .*initdata ${breaks}`);
      assert.throws(() => renderStockUserData(big(breaks), provider), { code: "resource_exhausted", message: problem });
    }
  });
});

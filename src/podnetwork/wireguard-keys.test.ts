import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isWireguardKey, newWireguardKeys, publicKeyOf } from "./wireguard-keys.ts";

describe("WireGuard's keys", () => {
  it("are fresh, and the public one follows from the private one", () => {
    const keys = newWireguardKeys();
    assert.ok(isWireguardKey(keys.privateKey) && isWireguardKey(keys.publicKey));
    assert.equal(publicKeyOf(keys.privateKey), keys.publicKey);
    assert.notEqual(newWireguardKeys().privateKey, keys.privateKey);
  });

  /** Source: RFC 7748 §6.1, Bob's keys. */
  it("are X25519's", () => {
    const base64 = (hex: string): string => Buffer.from(hex, "hex").toString("base64");
    const secret = base64("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    assert.equal(publicKeyOf(secret), base64("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
  });

  for (const text of ["", "short=", "A".repeat(43), `${"A".repeat(42)}B=`, `${"A".repeat(43)}=\n`]) {
    it(`are not ${JSON.stringify(text)}`, () => {
      assert.equal(isWireguardKey(text), false);
    });
  }
});

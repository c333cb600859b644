import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { type Static, Type } from "typebox";

const PATTERN = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$";
/** A key as WireGuard's tools write it: 32 bytes, base64. */
export const WireguardKey = Type.String({ pattern: PATTERN });
export type WireguardKey = Static<typeof WireguardKey>;

export function isWireguardKey(text: string): boolean {
  return new RegExp(PATTERN).test(text);
}

/** Base64, both. */
export interface WireguardKeys {
  readonly privateKey: WireguardKey;
  readonly publicKey: WireguardKey;
}

/** PKCS #8 of an X25519 key, up to its 32 bytes. Source: RFC 8410 §7 */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b656e04220420", "hex");

/** A fresh pair (X25519). */
export function newWireguardKeys(): WireguardKeys {
  const { privateKey, publicKey } = generateKeyPairSync("x25519");
  return { privateKey: base64(privateKey.export({ format: "jwk" }).d), publicKey: publicPart(publicKey) };
}

export function publicKeyOf(privateKey: WireguardKey): WireguardKey {
  const key = Buffer.concat([PKCS8_PREFIX, Buffer.from(privateKey, "base64")]);
  return publicPart(createPublicKey(createPrivateKey({ key, format: "der", type: "pkcs8" })));
}

function publicPart(key: KeyObject): WireguardKey {
  return base64(key.export({ format: "jwk" }).x);
}

function base64(base64url = ""): string {
  return Buffer.from(base64url, "base64url").toString("base64");
}

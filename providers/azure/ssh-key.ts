import { generateKeyPair } from "node:crypto";
import { promisify } from "node:util";

const BITS = 2048;

/**
 * A public key in OpenSSH's form whose private half is forgotten here and now: for VMs that Azure takes only with a key
 * and that nobody is to log in to.
 */
export async function makeUnusedSshKey(): Promise<string> {
  const { publicKey } = await promisify(generateKeyPair)("rsa", { modulusLength: BITS });
  const { e = "", n = "" } = publicKey.export({ format: "jwk" });
  const blob = Buffer.concat([field(Buffer.from("ssh-rsa")), field(positive(e)), field(positive(n))]);
  return `ssh-rsa ${blob.toString("base64")} nobody`;
}

/** Source: RFC 4253 §6.6, RFC 4251 §5 (string, mpint). */
function field(value: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(value.byteLength);
  return Buffer.concat([length, value]);
}

function positive(base64url: string): Buffer {
  const bytes = Buffer.from(base64url, "base64url");
  return (bytes[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes;
}

import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";

/** Shared access signatures: whoever has the address may do what it says until it ends. */
export class SharedAccess {
  readonly #key = randomBytes(32);
  /** Paths whose signatures were revoked. */
  readonly #revoked = new Set<string>();

  /**
   * @param permissions `r` and `w`
   * @returns a query string in the form of service version 2018-03-28
   */
  sign(path: string, permissions: string, seconds: number): string {
    this.#revoked.delete(path);
    const end = new Date(Date.now() + seconds * 1000).toISOString().replace(/\.\d+/, "");
    const query = new URLSearchParams({ sv: "2018-03-28", sr: "b", sp: permissions, se: end });
    query.set("sig", this.#signature(path, permissions, end));
    return query.toString();
  }

  revoke(path: string): void {
    this.#revoked.add(path);
  }

  /** @returns what is wrong; undefined = it may */
  check(path: string, query: URLSearchParams, permission: "r" | "w"): string | undefined {
    const [permissions, end, given] = [query.get("sp") ?? "", query.get("se") ?? "", query.get("sig") ?? ""];
    const expected = Buffer.from(this.#signature(path, permissions, end));
    const signature = Buffer.from(given);
    if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) return "Signature did not match";
    if (this.#revoked.has(path)) return "Access to the disk has been revoked";
    if (Date.parse(end) <= Date.now()) return `Signature not valid in the specified time frame: Expiry [${end}]`;
    return permissions.includes(permission) ? undefined : `Permission ${permission} is not granted`;
  }

  #signature(path: string, permissions: string, end: string): string {
    return createHmac("sha256", this.#key).update(`${path}\n${permissions}\n${end}`).digest("base64");
  }
}

import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { Fault } from "../../base/fault.ts";
import type { CertificateAuthority } from "../../identity/index.ts";
import { spkiFingerprint } from "../../identity/index.ts";
import type { AdaptorStore } from "../store/index.ts";

interface StoredToken {
  /** SHA-256 of the secret, hex: it has 256 bits of its own, so nothing slower is needed. */
  readonly hash: string;
  readonly expiresAt: string;
  /** The only node that may use it: chosen when it was made, or by its first use. */
  readonly nodeId?: string;
  /** Key of that first use, as spkiFingerprint: only the same request may be repeated. */
  readonly key?: string;
}

export interface JoinTokensDeps {
  readonly store: AdaptorStore;
  readonly ca: CertificateAuthority;
  readonly now: () => Date;
}

const PREFIX = "join:";
/** `<id>.<secret>` */
const TOKEN = /^([0-9a-f]{16})\.([A-Za-z0-9_-]{43})$/;

/** Tokens with which a node on another machine gets its first certificate: one node each, for a time, for nothing else. */
export class JoinTokens {
  readonly #deps: JoinTokensDeps;

  constructor(deps: JoinTokensDeps) {
    this.#deps = deps;
  }

  /** The token is shown this once; the store has its hash. */
  async create(options: {
    readonly ttlMs: number;
    readonly nodeId?: string;
  }): Promise<{ readonly token: string; readonly expiresAt: string }> {
    const { store, now } = this.#deps;
    await this.#dropExpired();
    const id = randomBytes(8).toString("hex");
    const secret = randomBytes(32).toString("base64url");
    const expiresAt = new Date(now().getTime() + options.ttlMs).toISOString();
    const { nodeId } = options;
    const stored: StoredToken = { hash: hashOf(secret), expiresAt, ...(nodeId === undefined ? {} : { nodeId }) };
    await store.facts.swap(PREFIX + id, undefined, JSON.stringify(stored));
    return { token: `${id}.${secret}`, expiresAt };
  }

  /**
   * Signs the key of a node that shows a token. The same request may be repeated, its answer may have been lost.
   * @throws Fault unauthenticated; permission_denied when it was made for, or used by, another node or key
   */
  async join(
    token: string,
    nodeId: string,
    csrPem: string,
  ): Promise<{ readonly certificatePem: string; readonly caPem: string }> {
    const { store, ca, now } = this.#deps;
    const [, id = "", secret = ""] = TOKEN.exec(token) ?? [];
    const key = spkiFingerprint(csrPem);
    const certificatePem = await ca.signNode(csrPem, nodeId); // checks the request before the token is used up
    for (;;) {
      const text = id === "" ? undefined : await store.facts.get(PREFIX + id);
      const stored = text === undefined ? undefined : (JSON.parse(text) as StoredToken);
      if (stored === undefined || !equal(stored.hash, hashOf(secret)) || new Date(stored.expiresAt) <= now()) {
        const message = "the join token is unknown or over: make a new one with `kata-remote adaptor token`";
        throw new Fault("unauthenticated", message, { node: nodeId });
      }
      if ((stored.nodeId ?? nodeId) !== nodeId || (stored.key ?? key) !== key) {
        const message =
          "the join token is another node's, or was used with another key: each node needs one of its own";
        throw new Fault("permission_denied", message, { node: nodeId });
      }
      if (stored.key === key) break;
      if (await store.facts.swap(PREFIX + id, text, JSON.stringify({ ...stored, nodeId, key }))) break;
    }
    return { certificatePem, caPem: ca.caPem };
  }

  async #dropExpired(): Promise<void> {
    const { store, now } = this.#deps;
    for (const [name, text] of await store.facts.list(PREFIX)) {
      if (new Date((JSON.parse(text) as StoredToken).expiresAt) <= now()) await store.facts.swap(name, text, undefined);
    }
  }
}

function hashOf(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

function equal(a: string, b: string): boolean {
  return a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
}

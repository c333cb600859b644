import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../../base/files.ts";
import { makeCsr, newKeyPair, nodeCommonName } from "../../identity/index.ts";

export interface Identity {
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** Signs a node's request: the adaptor's EnrollNode, or the node's own CA. */
export type SignNode = (
  csrPem: string,
  call: Call,
) => Promise<{ readonly caPem: string; readonly certificatePem: string }>;

/**
 * The node's TLS identity towards its guests. The key is made once and stays on the node (0600); the certificate is
 * asked for once per process, and again after `forget`: the signer may have come back with another CA.
 */
export class NodeIdentity {
  readonly #deps: { readonly dir: string; readonly nodeId: string; readonly sign: SignNode };
  #current: Promise<Identity> | undefined;

  constructor(deps: { readonly dir: string; readonly nodeId: string; readonly sign: SignNode }) {
    this.#deps = deps;
  }

  /** @throws Fault what the signer throws; asked again by the next call */
  get(call: Call): Promise<Identity> {
    const current = this.#current ?? this.#enroll(call);
    this.#current = current;
    current.catch(() => {
      if (this.#current === current) this.#current = undefined;
    });
    return current;
  }

  forget(): void {
    this.#current = undefined;
  }

  async #enroll(call: Call): Promise<Identity> {
    const keyPem = await nodeKey(this.#deps.dir);
    const signed = await this.#deps.sign(makeCsr(keyPem, nodeCommonName(this.#deps.nodeId)), call);
    return { caPem: signed.caPem, certificatePem: signed.certificatePem, keyPem };
  }
}

/** The node's key, made once (0600). */
export async function nodeKey(dir: string): Promise<string> {
  const path = join(dir, "node.key");
  const known = await readIfThere(path);
  if (known !== undefined) return known;
  await mkdirPrivate(dir);
  const { keyPem } = newKeyPair();
  await writeFileAtomic(path, keyPem);
  return keyPem;
}

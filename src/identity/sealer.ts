import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { join } from "node:path";
import { Fault } from "../base/fault.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../base/files.ts";
import { Mutex } from "../base/mutex.ts";

interface SealKey {
  readonly id: string;
  /** 32 bytes, base64. */
  readonly key: string;
  /** RFC 3339 */
  readonly since: string;
}

const CIPHER = "aes-256-gcm";
const IV_BYTES = 12;
const TAG_BYTES = 16;
export const SEAL_KEYS_FILE = "seal.keys";

/**
 * Encrypts what must be kept and must not be readable in a store (user-data with a key in it). The keys are in
 * `seal.keys` (0600); what was sealed with an older one can be opened as long as that stays in the file.
 */
export class Sealer {
  readonly #path: string;
  readonly #now: () => Date;
  readonly #rotateAfterMs: number | undefined;
  readonly #mutex = new Mutex();
  #keys: readonly SealKey[];

  private constructor(path: string, keys: readonly SealKey[], options: SealerOptions) {
    this.#path = path;
    this.#keys = keys;
    this.#now = options.now ?? (() => new Date());
    this.#rotateAfterMs = options.rotateAfterMs;
  }

  /** Makes no file: the first `seal` does. @throws Fault failed_precondition when the file there is none of ours */
  static async open(dir: string, options: SealerOptions = {}): Promise<Sealer> {
    const path = join(dir, SEAL_KEYS_FILE);
    await mkdirPrivate(dir);
    return new Sealer(path, parse(await readIfThere(path), path), options);
  }

  /** Names the key in use; makes it when it is missing or its time is over. */
  async currentKey(): Promise<string> {
    return (await this.#current()).id;
  }

  /** @param context Has to be the same to open it again: whose it is */
  async seal(plain: Uint8Array, context: string): Promise<string> {
    const { id, key } = await this.#current();
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv(CIPHER, Buffer.from(key, "base64"), iv).setAAD(Buffer.from(context));
    const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
    return `${id}.${Buffer.concat([iv, cipher.getAuthTag(), sealed]).toString("base64")}`;
  }

  /** @throws Fault failed_precondition when its key is gone, or it was changed or made for another context */
  open(sealed: string, context: string): Buffer {
    const [id = "", text = ""] = sealed.split(".");
    const found = this.#keys.find((k) => k.id === id);
    if (found === undefined) {
      const message = `${this.#path} has no key ${id}: put the file there again that the adaptor had before (adaptors of one store share it)`;
      throw new Fault("failed_precondition", message);
    }
    const bytes = Buffer.from(text, "base64");
    const decipher = createDecipheriv(CIPHER, Buffer.from(found.key, "base64"), bytes.subarray(0, IV_BYTES))
      .setAAD(Buffer.from(context))
      .setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
    try {
      return Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]);
    } catch (cause) {
      throw new Fault("failed_precondition", `what was sealed for ${context} was changed in the store`, {}, { cause });
    }
  }

  #current(): Promise<SealKey> {
    return this.#mutex.run(async () => {
      const newest = this.#keys[0];
      const now = this.#now();
      const over =
        newest === undefined ||
        (this.#rotateAfterMs !== undefined && now.getTime() - Date.parse(newest.since) >= this.#rotateAfterMs);
      if (newest !== undefined && !over) return newest;
      const made = {
        id: randomBytes(6).toString("hex"),
        key: randomBytes(32).toString("base64"),
        since: now.toISOString(),
      };
      const keys = [made, ...this.#keys];
      await writeFileAtomic(this.#path, `${JSON.stringify({ version: 1, keys }, undefined, 2)}\n`);
      this.#keys = keys;
      return made;
    });
  }
}

export interface SealerOptions {
  readonly now?: () => Date;
  /** A key is followed by a new one after this, ms; absent: never, since others have copies of the file. */
  readonly rotateAfterMs?: number;
}

function parse(text: string | undefined, path: string): readonly SealKey[] {
  if (text === undefined) return [];
  let keys: unknown;
  try {
    keys = (JSON.parse(text) as { keys?: unknown } | null)?.keys;
  } catch (cause) {
    throw broken(path, cause);
  }
  const isKey = (k: Partial<SealKey> | null): k is SealKey =>
    typeof k?.id === "string" && typeof k.since === "string" && Buffer.from(k.key ?? "", "base64").length === 32;
  if (!Array.isArray(keys) || !keys.every(isKey)) throw broken(path);
  return keys;
}

function broken(path: string, cause?: unknown): Fault {
  const message = `${path} is not a file of keys that this program wrote: restore it, or remove it once no pod with the stock image runs`;
  return new Fault("failed_precondition", message, {}, { cause });
}

import { type Call, withDeadline } from "../../src/base/call.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import { race } from "../../src/base/retry.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { kindOf } from "./faults.ts";

/** Who waits for a line on a console asks ten times a second; EC2 is asked this often, ms. */
const FRESH_MS = 2000;
const TIMEOUT_MS = 30_000;

interface Kept {
  readonly at: number;
  readonly text: Promise<Buffer | undefined>;
}

/** Serial consoles. What was read a moment ago is given again: each instance costs one request in two seconds at most. */
export class ConsoleReader {
  readonly #api: Ec2Api;
  readonly #now: () => Date;
  readonly #kept = new Map<InstanceId, Kept>();

  constructor(deps: { readonly api: Ec2Api; readonly now: () => Date }) {
    this.#api = deps.api;
    this.#now = deps.now;
  }

  /** @returns undefined for an instance that EC2 does not know; empty while nothing has been written */
  async read(id: InstanceId, maxBytes: number, call: Call): Promise<string | undefined> {
    const now = this.#now().getTime();
    for (const [key, { at }] of this.#kept) if (now - at >= FRESH_MS) this.#kept.delete(key);
    const kept = this.#kept.get(id) ?? { at: now, text: this.#fetch(id) };
    this.#kept.set(id, kept);
    kept.text.catch(() => this.#kept.delete(id));
    const text = await race(kept.text, call);
    return text === undefined ? undefined : newest(text, maxBytes);
  }

  async #fetch(id: InstanceId): Promise<Buffer | undefined> {
    const call = withDeadline(TIMEOUT_MS);
    try {
      return Buffer.from((await this.#latest(id, call)) ?? "", "base64");
    } catch (e) {
      if (kindOf(e) === "not-found") return undefined;
      throw e;
    }
  }

  async #latest(id: InstanceId, call: Call): Promise<string | undefined> {
    try {
      return await this.#api.getConsoleOutput({ InstanceId: id, Latest: true }, call);
    } catch (e) {
      // Types before Nitro have only what was posted after the boot.
      if (kindOf(e) !== "bad-request") throw e;
      return this.#api.getConsoleOutput({ InstanceId: id }, call);
    }
  }
}

/** The last bytes, not beginning inside of a character. */
export function newest(text: Buffer, maxBytes: number): string {
  let start = Math.max(0, text.byteLength - maxBytes);
  while (start > 0 && start < text.byteLength && ((text[start] ?? 0) & 0xc0) === 0x80) start++;
  const part = text.subarray(start).toString();
  // A console may hold bytes that are no text; their stand-ins are longer than they are.
  return Buffer.byteLength(part) <= maxBytes
    ? part
    : text
        .subarray(start)
        .toString("latin1")
        .replace(/[\x80-\xff]/g, "?");
}

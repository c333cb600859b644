import type { Call } from "../../src/base/call.ts";
import type { Clock } from "../../src/base/clock.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import { Cached } from "../../src/provider/index.ts";
import type { ArmApi } from "./arm-api.ts";
import { faultOf, kindOf, toFault } from "./faults.ts";
import { type HttpAnswer, httpGet } from "./http-get.ts";

/** Who waits for a line on a console asks ten times a second; Azure is asked this often, ms. */
const FRESH_MS = 2000;
/** An address of the log is good for 5 minutes. */
const ADDRESS_MS = 240_000;
const MAX_LOG_BYTES = 4 << 20;

export interface ConsoleReaderDeps {
  readonly api: ArmApi;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly ca: string | undefined;
}

/** Serial consoles: Azure gives the address of a log in a storage account of its own, which is then read there. */
export class ConsoleReader {
  readonly #deps: ConsoleReaderDeps;
  readonly #addresses: Cached<InstanceId, string | undefined>;
  readonly #logs: Cached<InstanceId, Buffer | undefined>;

  constructor(deps: ConsoleReaderDeps) {
    const { clock } = deps;
    this.#deps = deps;
    this.#addresses = new Cached({ load: (id, call) => this.#address(id, call), keepMs: ADDRESS_MS, clock });
    this.#logs = new Cached({ load: (id, call) => this.#log(id, call), keepMs: FRESH_MS, clock });
  }

  /** @returns undefined for a VM that Azure does not know; empty while nothing has been written */
  async read(id: InstanceId, maxBytes: number, call: Call): Promise<string | undefined> {
    const log = await this.#logs.get(id, call);
    return log === undefined ? undefined : newest(log, maxBytes);
  }

  async #address(id: InstanceId, call: Call): Promise<string | undefined> {
    try {
      return (await this.#deps.api.consoleUri(id, call)) ?? "";
    } catch (e) {
      const kind = kindOf(e);
      if (kind === "not-found") return undefined;
      // There is no log before the machine has been put somewhere.
      if (kind === "busy" || kind === "bad-request") return "";
      throw e;
    }
  }

  async #log(id: InstanceId, call: Call): Promise<Buffer | undefined> {
    const address = await this.#addresses.get(id, call);
    if (address === undefined) return undefined;
    if (address === "") {
      this.#addresses.drop(id);
      return Buffer.alloc(0);
    }
    const { status, body } = await this.#get(address, call);
    if (status === 200 || status === 206) return body;
    this.#addresses.drop(id);
    if (status === 404) return Buffer.alloc(0); // nothing has been written
    const error = { code: `StorageStatus${status}`, message: body.toString("utf8", 0, 200), status };
    throw faultOf(error, "read console log", { instanceId: id });
  }

  async #get(address: string, call: Call): Promise<HttpAnswer> {
    const { timeoutMs, ca } = this.#deps;
    try {
      return await httpGet(address, { timeoutMs, ca, maxBytes: MAX_LOG_BYTES }, call);
    } catch (e) {
      throw toFault(e, "read console log", {});
    }
  }
}

/** The last bytes, not beginning inside of a character. */
function newest(text: Buffer, maxBytes: number): string {
  let start = Math.max(0, text.byteLength - maxBytes);
  while (start > 0 && start < text.byteLength && ((text[start] ?? 0) & 0xc0) === 0x80) start++;
  const part = text.subarray(start).toString();
  if (Buffer.byteLength(part) <= maxBytes) return part;
  // A console may hold bytes that are no text; their stand-ins are longer than they are.
  return text
    .subarray(start)
    .toString("latin1")
    .replace(/[\x80-\xff]/g, "?");
}

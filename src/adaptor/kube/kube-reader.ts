import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";

export interface KubeAddress {
  readonly host: string;
  readonly port: number;
  /** Where the service account's `token` and `ca.crt` are mounted. */
  readonly accountDir: string;
}

/** An answer is at most this long, bytes: a Secret has 1 MiB. */
const MAX_BYTES = 4 * 1024 * 1024;

/** Reads single objects of the cluster that this process runs in, over one connection that is kept. */
export class KubeReader {
  readonly #address: KubeAddress;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4 });

  constructor(address: KubeAddress) {
    this.#address = address;
  }

  /**
   * @param path Such as `/api/v1/namespaces/default/pods/web`; its parts must be names
   * @returns undefined when there is no such object
   * @throws Fault permission_denied | unauthenticated | unavailable
   */
  async get<T>(path: string, call: Call): Promise<T | undefined> {
    const { host, port, accountDir } = this.#address;
    // Read each time: the kubelet replaces the token while we run.
    const [token, ca] = await Promise.all([
      readFile(join(accountDir, "token"), "utf8"),
      readFile(join(accountDir, "ca.crt"), "utf8"),
    ]);
    const headers = { authorization: `Bearer ${token.trim()}`, accept: "application/json" };
    const { status, text } = await new Promise<{ status: number; text: string }>((resolve, reject) => {
      const sent = request({ host, port, path, ca, headers, agent: this.#agent, signal: call.signal }, (response) => {
        const parts: Buffer[] = [];
        let bytes = 0;
        response.on("data", (part: Buffer) => {
          bytes += part.length;
          if (bytes > MAX_BYTES) sent.destroy(new Error(`more than ${MAX_BYTES} bytes`));
          else parts.push(part);
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }));
        response.on("error", reject);
      });
      sent.on("error", reject);
      sent.end();
    }).catch((cause: unknown) => {
      throw new Fault("unavailable", `the Kubernetes API at ${host}:${port} gave no answer to ${path}`, {}, { cause });
    });
    if (status === 404) return undefined;
    if (status === 200) return JSON.parse(text) as T;
    const code = status === 403 ? "permission_denied" : status === 401 ? "unauthenticated" : "unavailable";
    throw new Fault(code, `the Kubernetes API answered ${path} with ${status}: ${text.slice(0, 300)}`);
  }

  close(): void {
    this.#agent.destroy();
  }
}

import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { Fault, type FaultCode } from "../../base/fault.ts";

export interface KubeAddress {
  readonly host: string;
  readonly port: number;
  /** Where the service account's `token` and `ca.crt` are mounted. */
  readonly accountDir: string;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Source: kubernetes.io API conventions, "HTTP Status codes". */
const CODES: Readonly<Record<number, FaultCode>> = {
  400: "invalid_argument",
  401: "unauthenticated",
  403: "permission_denied",
  404: "not_found",
  409: "already_exists",
  422: "invalid_argument",
};
/** An answer is at most this long, bytes: a Secret has 1 MiB. */
const MAX_BYTES = 4 * 1024 * 1024;

/** Reads and creates single objects of the cluster that this process runs in, over connections that are kept. */
export class KubeReader {
  readonly #address: KubeAddress;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4 });

  constructor(address: KubeAddress) {
    this.#address = address;
  }

  /** Of the service account. */
  async namespace(): Promise<string> {
    return (await readFile(join(this.#address.accountDir, "namespace"), "utf8")).trim();
  }

  /**
   * @param path Such as `/api/v1/namespaces/default/pods/web`; its parts must be names
   * @returns undefined when there is no such object
   * @throws Fault permission_denied | unauthenticated | unavailable
   */
  async get<T>(path: string, call: Call): Promise<T | undefined> {
    const { status, text } = await this.#ask("GET", path, undefined, call);
    if (status === 404) return undefined;
    if (status === 200) return JSON.parse(text) as T;
    throw refusal("GET", path, status, text);
  }

  /**
   * @param path Of the kind's list, such as `/api/v1/namespaces/default/events`
   * @throws Fault already_exists | not_found (the namespace) | permission_denied | unauthenticated | invalid_argument | unavailable
   */
  async create(path: string, object: object, call: Call): Promise<void> {
    const { status, text } = await this.#ask("POST", path, JSON.stringify(object), call);
    if (status !== 201) throw refusal("POST", path, status, text);
  }

  close(): void {
    this.#agent.destroy();
  }

  async #ask(method: string, path: string, body: string | undefined, call: Call): Promise<Answer> {
    const { host, port, accountDir } = this.#address;
    // Read each time: the kubelet replaces the token while we run.
    const [token, ca] = await Promise.all([
      readFile(join(accountDir, "token"), "utf8"),
      readFile(join(accountDir, "ca.crt"), "utf8"),
    ]);
    const headers = {
      authorization: `Bearer ${token.trim()}`,
      accept: "application/json",
      ...(body === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(body) }),
    };
    const options = { host, port, method, path, ca, headers, agent: this.#agent, signal: call.signal };
    return new Promise<Answer>((resolve, reject) => {
      const sent = request(options, (response) => {
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
      sent.end(body);
    }).catch((cause: unknown) => {
      throw new Fault("unavailable", `the Kubernetes API at ${host}:${port} gave no answer to ${path}`, {}, { cause });
    });
  }
}

function refusal(method: string, path: string, status: number, text: string): Fault {
  const code = CODES[status] ?? "unavailable";
  return new Fault(code, `the Kubernetes API answered ${method} ${path} with ${status}: ${text.slice(0, 300)}`);
}

import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import type { LookupFunction } from "node:net";
import { rootCertificates } from "node:tls";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { ended } from "../../base/retry.ts";
import type { ImageSettings } from "../../guestwire/index.ts";
import { lookupAt } from "./name-lookup.ts";

export interface HttpRequest {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent as a form by POST. */
  readonly form?: string;
}

export interface HttpReply {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  /** Read it to its end or destroy it. */
  readonly body: IncomingMessage;
  /** Where the answer came from, after redirects. */
  readonly url: URL;
}

/** Source: none needs more; more is a loop. */
const MAX_REDIRECTS = 5;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
export const DEFAULT_STALL_MS = 30_000;

/**
 * HTTP(S) without what a pull does not need, as the guest's memory belongs to the pod. TLS is decided per host; a redirect
 * to another host never gets the credentials.
 */
export class HttpClient implements Disposable {
  readonly #settings: ImageSettings;
  readonly #agents = new Map<string, HttpAgent>();
  readonly #lookup: LookupFunction | undefined;

  /** @throws Fault invalid_argument for a name server that is none */
  constructor(settings: ImageSettings) {
    this.#settings = settings;
    const { nameservers = [] } = settings;
    this.#lookup = nameservers.length === 0 ? undefined : lookupAt(nameservers);
  }

  [Symbol.dispose](): void {
    for (const agent of this.#agents.values()) agent.destroy();
    this.#agents.clear();
  }

  /** `https` unless the settings say that the host has no TLS. */
  schemeOf(host: string): "http" | "https" {
    return this.#settings.registries?.[host]?.plainHttp === true ? "http" : "https";
  }

  /**
   * @returns the answer, whatever its status
   * @throws Fault unavailable (no connection, no answer in stallMs), permission_denied (redirect that would leave TLS)
   */
  async send(request: HttpRequest, call: Call): Promise<HttpReply> {
    let { url, headers, form } = request;
    for (let redirects = 0; ; redirects += 1) {
      const body = await this.#once({ url, headers, ...(form === undefined ? {} : { form }) }, call);
      const status = body.statusCode ?? 0;
      const location = body.headers.location;
      if (!REDIRECTS.has(status) || location === undefined) return { status, headers: body.headers, body, url };
      body.destroy();
      if (redirects === MAX_REDIRECTS)
        throw new Fault("unavailable", `${request.url.host} redirects more than ${MAX_REDIRECTS} times`);
      const next = URL.parse(location, url.href);
      if (next === null) throw new Fault("unavailable", `${url.host} redirects to "${location.slice(0, 200)}", no URL`);
      this.#checkScheme(next);
      if (next.origin !== url.origin) headers = without(headers, "authorization");
      url = next;
      form = undefined;
    }
  }

  /** Nothing is sent without TLS, unless the host's settings say so. @throws Fault permission_denied */
  #checkScheme(url: URL): void {
    if (url.protocol === "https:") return;
    if (url.protocol === "http:" && this.schemeOf(url.host) === "http") return;
    throw new Fault(
      "permission_denied",
      `${url.protocol}//${url.host} has no TLS, which the images' settings do not allow for that host`,
    );
  }

  async #once({ url, headers, form }: HttpRequest, call: Call): Promise<IncomingMessage> {
    this.#checkScheme(url);
    const stallMs = this.#settings.stallMs ?? DEFAULT_STALL_MS;
    const send = url.protocol === "https:" ? httpsRequest : httpRequest;
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const request = send(url, {
      method: form === undefined ? "GET" : "POST",
      headers: {
        "user-agent": "kata-remote",
        ...headers,
        ...(form === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
      },
      agent: this.#agentOf(url),
      ...(this.#lookup === undefined ? {} : { lookup: this.#lookup }),
      signal: call.signal,
    });
    const stalled = setTimeout(
      () => request.destroy(new Fault("unavailable", `${url.host} gave no answer within ${stallMs / 1000} s`)),
      stallMs,
    );
    request.once("response", resolve);
    request.on("error", (error) => reject(call.signal.aborted ? ended(call, error) : unreachable(url, error)));
    request.end(form);
    try {
      const response = await promise;
      response.on("error", () => undefined); // whoever reads sees it; nobody may be reading
      return response;
    } finally {
      clearTimeout(stalled);
    }
  }

  #agentOf(url: URL): HttpAgent {
    const found = this.#agents.get(url.origin);
    if (found !== undefined) return found;
    const keep = { keepAlive: true, maxSockets: 8, timeout: 60_000 };
    const agent =
      url.protocol === "https:" ? new HttpsAgent({ ...keep, ...this.#tlsOf(url.host) }) : new HttpAgent(keep);
    this.#agents.set(url.origin, agent);
    return agent;
  }

  #tlsOf(host: string): { readonly ca?: string[]; readonly rejectUnauthorized?: boolean } {
    const registry = this.#settings.registries?.[host];
    if (registry?.skipVerify === true) return { rejectUnauthorized: false };
    if (registry?.caPem) return { ca: [registry.caPem] };
    // Without it Node takes the same public CAs, and keeps them in memory once.
    return this.#settings.caPem ? { ca: [...rootCertificates, this.#settings.caPem] } : {};
  }
}

function unreachable(url: URL, error: Error): Fault {
  if (error instanceof Fault) return error;
  const { code = "" } = error as NodeJS.ErrnoException;
  const tls = /CERT|SIGNATURE|SELF_SIGNED|ALTNAME|^ERR_TLS|^ERR_SSL/.test(code);
  const what = tls
    ? `${url.host} shows a certificate that is not trusted (${code}); give the pod VM its CA`
    : `${url.host} cannot be reached from the pod VM`;
  return new Fault("unavailable", what, {}, { cause: error, retryable: !tls });
}

function without(headers: Readonly<Record<string, string>>, name: string): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(headers).filter(([key]) => key.toLowerCase() !== name));
}

import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import type { ImageSettings } from "../../guestwire/index.ts";
import { Authorizer, refusedLogin } from "./authorizer.ts";
import { loginFor } from "./credentials.ts";
import { DEFAULT_STALL_MS, type HttpClient, type HttpReply } from "./http-client.ts";
import { readAll } from "./read-all.ts";
import type { ImageReference } from "./reference.ts";

/** Longest text of an error that is passed on, characters. */
const MAX_ERROR = 300;

/** One place that has an image's repository: the registry itself or a mirror of it. */
export class Registry {
  /** For messages. */
  readonly host: string;
  readonly mirror: boolean;
  readonly #base: string;
  readonly #repository: string;
  readonly #http: HttpClient;
  readonly #authorizer: Authorizer;
  readonly #stallMs: number;

  constructor(options: {
    readonly base: URL;
    readonly mirror: boolean;
    readonly reference: ImageReference;
    readonly settings: ImageSettings;
    readonly http: HttpClient;
  }) {
    const { base, mirror, reference, settings, http } = options;
    this.host = base.host;
    this.mirror = mirror;
    this.#base = base.href.replace(/\/+$/, "");
    this.#repository = reference.repository;
    this.#http = http;
    this.#stallMs = settings.stallMs ?? DEFAULT_STALL_MS;
    // A mirror gets its own login, never the registry's.
    const login = loginFor(settings.auths, mirror ? { ...reference, registry: base.host } : reference);
    this.#authorizer = new Authorizer({ http, login, repository: reference.repository, stallMs: this.#stallMs });
  }

  /**
   * GETs `/v2/<repository>/<path>`, logging in when asked to: at first, and again when what was sent has expired.
   * @returns an answer of 200 or 206
   * @throws Fault unauthenticated, permission_denied, not_found (404), resource_exhausted (429), unavailable
   */
  async get(path: string, headers: Readonly<Record<string, string>>, call: Call): Promise<HttpReply> {
    const url = new URL(`${this.#base}/v2/${this.#repository}/${path}`);
    for (let logins = 0; ; logins += 1) {
      const authorization = this.#authorizer.header;
      const sent = authorization === undefined ? headers : { ...headers, authorization };
      const reply = await this.#http.send({ url, headers: sent }, call);
      if (reply.status === 200 || reply.status === 206) return reply;
      if (reply.status !== 401 || reply.url.origin !== url.origin) throw await this.#fault(reply, path);
      reply.body.destroy();
      if (logins > 0) throw refusedLogin(this.host, this.#repository); // what was sent is fresh
      await this.#authorizer.renew(reply, authorization, call);
    }
  }

  async #fault(reply: HttpReply, path: string): Promise<Fault> {
    const said = (await readAll(reply, 64 * 1024, this.#stallMs).catch(() => Buffer.alloc(0))).toString("utf8");
    const what = `${this.#repository}/${path}`;
    const detail = errorText(said);
    const say = (text: string): string => `registry ${this.host} ${text}${detail === "" ? "" : `: ${detail}`}`;
    switch (reply.status) {
      case 401:
      case 403:
        return new Fault("permission_denied", say(`does not let this login read ${what} (${reply.status})`));
      case 404:
        return new Fault("not_found", say(`has no ${what}`));
      case 429:
        return new Fault("resource_exhausted", say(`gives no more for now (429)`), retryContext(reply), {
          retryable: true,
        });
      default:
        return new Fault("unavailable", say(`answered ${reply.status} for ${what}`), retryContext(reply), {
          retryable: reply.status >= 500 || reply.status === 408,
        });
    }
  }
}

/** Its mirrors in order, then the registry. @throws Fault invalid_argument for a mirror that is no URL */
export function registriesOf(
  reference: ImageReference,
  settings: ImageSettings,
  http: HttpClient,
): readonly Registry[] {
  const host = reference.registry === "docker.io" ? "registry-1.docker.io" : reference.registry;
  const common = { reference, settings, http };
  const mirrors = settings.registries?.[reference.registry]?.mirrors ?? [];
  return [
    ...mirrors.map((text) => {
      const base = URL.parse(text);
      if (base === null || !/^https?:$/.test(base.protocol))
        throw new Fault("invalid_argument", `mirror "${text}" of registry ${reference.registry} is not a URL`);
      return new Registry({ ...common, base, mirror: true });
    }),
    new Registry({ ...common, base: new URL(`${http.schemeOf(reference.registry)}://${host}`), mirror: false }),
  ];
}

/** What the registry says in words, when it says it in the form that registries have. */
function errorText(body: string): string {
  try {
    const { errors } = JSON.parse(body) as { errors?: readonly { code?: unknown; message?: unknown }[] };
    const texts = (errors ?? []).map((e) => [e.code, e.message].filter((t) => typeof t === "string").join(" "));
    return texts.join("; ").slice(0, MAX_ERROR);
  } catch {
    return ""; // a proxy's page
  }
}

/** Seconds of Retry-After, for who tries again. */
function retryContext(reply: HttpReply): { readonly retryAfter?: number } {
  const seconds = Number(reply.headers["retry-after"]);
  return Number.isFinite(seconds) && seconds >= 0 ? { retryAfter: seconds } : {};
}

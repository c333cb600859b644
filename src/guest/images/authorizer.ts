import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Login } from "./credentials.ts";
import type { HttpClient, HttpReply } from "./http-client.ts";
import { readAll } from "./read-all.ts";

export interface AuthorizerDeps {
  readonly http: HttpClient;
  /** For this registry's repository; undefined: none is known. */
  readonly login: Login | undefined;
  readonly repository: string;
  readonly stallMs: number;
}

/** Largest answer of a token server, bytes. */
const MAX_TOKEN_BYTES = 1 << 20;

/** The Authorization header of one registry: none until it asks for one, then Basic or a token, made anew when it expires. */
export class Authorizer {
  readonly #deps: AuthorizerDeps;
  #header: string | undefined;
  #renewal: Promise<void> | undefined;

  constructor(deps: AuthorizerDeps) {
    this.#deps = deps;
  }

  get header(): string | undefined {
    return this.#header;
  }

  /**
   * After a 401: logs in as the registry asks. Callers that were refused with the same header share one login.
   * @param refused the header that was sent
   * @throws Fault unauthenticated when there is no login or it is refused; unavailable when the token server is away
   */
  async renew(reply: HttpReply, refused: string | undefined, call: Call): Promise<void> {
    if (this.#renewal === undefined && this.#header !== refused) return; // somebody did meanwhile
    this.#renewal ??= this.#login(reply, call).finally(() => {
      this.#renewal = undefined;
    });
    await this.#renewal;
  }

  async #login(reply: HttpReply, call: Call): Promise<void> {
    const { login, repository } = this.#deps;
    const host = reply.url.host;
    const challenges = parseChallenges(reply.headers["www-authenticate"] ?? "");
    const bearer = challenges.find((c) => c.scheme === "bearer" && c.parameters.realm !== undefined);
    if (bearer !== undefined) {
      const token = login?.kind === "bearer" ? login.token : await this.#token(bearer, host, call);
      this.#header = `Bearer ${token}`;
      return;
    }
    if (!challenges.some((c) => c.scheme === "basic")) {
      const offered = challenges.map((c) => c.scheme).join(", ");
      throw new Fault(
        "unauthenticated",
        `registry ${host} refuses ${repository} and offers no login that is known here (${offered || "none"})`,
      );
    }
    if (login === undefined) throw noLogin(host, repository);
    if (login.kind !== "basic")
      throw new Fault("unauthenticated", `registry ${host} wants user and password, the pull secret has a token only`);
    this.#header = basic(login);
  }

  /** Source: distribution's token authentication specification (GET), and its OAuth2 form (POST). */
  async #token({ parameters }: Challenge, registry: string, call: Call): Promise<string> {
    const { http, login, repository, stallMs } = this.#deps;
    const realm = URL.parse(parameters.realm ?? "");
    if (realm === null)
      throw new Fault(
        "unauthenticated",
        `registry ${registry} names "${parameters.realm}" for tokens, which is no URL`,
      );
    const scope = parameters.scope ?? `repository:${repository}:pull`;
    const service = parameters.service;
    const asked = new URLSearchParams(realm.search);
    if (service !== undefined) asked.set("service", service);
    asked.set("scope", scope);
    let form: string | undefined;
    const headers: Record<string, string> = {};
    if (login?.kind === "refresh") {
      asked.set("grant_type", "refresh_token");
      asked.set("refresh_token", login.token);
      asked.set("client_id", "kata-remote");
      form = asked.toString();
    } else {
      realm.search = asked.toString();
      if (login?.kind === "basic") headers.authorization = basic(login);
    }
    const reply = await http.send({ url: realm, headers, ...(form === undefined ? {} : { form }) }, call);
    const text = (await readAll(reply, MAX_TOKEN_BYTES, stallMs)).toString("utf8");
    if (reply.status === 401 || reply.status === 403 || reply.status === 400) {
      if (login === undefined) throw noLogin(registry, repository);
      throw refusedLogin(registry, repository);
    }
    if (reply.status !== 200)
      throw new Fault("unavailable", `the token server ${realm.host} of registry ${registry} answered ${reply.status}`);
    return tokenOf(text, realm.host);
  }
}

/** @throws Fault unavailable */
function tokenOf(text: string, host: string): string {
  const token = tokenIn(text);
  // It becomes a header.
  if (typeof token === "string" && /^[\x21-\x7e]+$/.test(token)) return token;
  throw new Fault("unavailable", `the token server ${host} answered without a token`);
}

function tokenIn(text: string): unknown {
  try {
    const answer = JSON.parse(text) as { readonly token?: unknown; readonly access_token?: unknown } | null;
    return answer?.token ?? answer?.access_token;
  } catch {
    return undefined; // the caller says that there is none
  }
}

function basic(login: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${login.username}:${login.password}`).toString("base64")}`;
}

function noLogin(host: string, repository: string): Fault {
  return new Fault(
    "unauthenticated",
    `registry ${host} wants a login for ${repository}, and the pod has none: give it a pull secret`,
  );
}

/** What it refuses is not worth another try. */
export function refusedLogin(host: string, repository: string): Fault {
  return new Fault(
    "unauthenticated",
    `registry ${host} refuses the pull secret's login for ${repository}: it is wrong or has expired`,
  );
}

import { randomUUID } from "node:crypto";
import { type Claims, TokenIssuer } from "./tokens.ts";
import type { WireReply, WireRequest } from "./wire.ts";

/** An application that may ask for tokens. */
export interface Application {
  readonly clientId: string;
  readonly objectId: string;
  readonly secret: string;
  /** Tokens of others that stand for it. */
  readonly federated: { readonly issuer: string; readonly subject: string };
}

const ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/** What a federated credential is for. Source: learn.microsoft.com "Workload identity federation". */
const EXCHANGE = "api://AzureADTokenExchange";

/** Tokens and documents of one Microsoft Entra tenant. */
export class EntraTenant {
  readonly id: string;
  readonly issuer = new TokenIssuer();
  readonly application: Application = {
    clientId: "22222222-0000-0000-0000-000000000001",
    objectId: "22222222-0000-0000-0000-00000000000f",
    secret: "test~secret+of/the.application",
    federated: { issuer: "https://oidc.cluster.example/", subject: "system:serviceaccount:kata-remote:adaptor" },
  };
  /** The cluster that signs service account tokens. */
  readonly #cluster = new TokenIssuer();
  /** How long tokens are good, s. */
  lifetimeS = 3600;

  constructor(id: string) {
    this.id = id;
  }

  /** A service account token as Kubernetes projects it for workload identity. */
  serviceAccountToken(change: Partial<Claims> = {}): string {
    const { issuer, subject } = this.application.federated;
    const exp = Math.floor(Date.now() / 1000) + 3600;
    return this.#cluster.sign({ aud: EXCHANGE, iss: issuer, sub: subject, exp, ...change });
  }

  /** What the application gets, whichever way it showed who it is. */
  accessToken(resource: string, change: Partial<Claims> = {}): string {
    const { clientId, objectId } = this.application;
    const now = Math.floor(Date.now() / 1000);
    return this.issuer.sign({
      ...{ aud: resource, iss: `https://sts.windows.net/${this.id}/`, sub: objectId, oid: objectId },
      ...{ appid: clientId, tid: this.id, nbf: now - 5, exp: now + this.lifetimeS },
      ...change,
    });
  }

  /** @returns undefined for what is no address of Entra */
  answer(request: WireRequest, base: string): WireReply | undefined {
    const url = new URL(request.path, base);
    if (request.method === "GET" && url.pathname === "/common/discovery/instance") return this.#instance(url, base);
    const [, tenant = "", rest = ""] = /^\/([^/]+)\/(.+)$/.exec(url.pathname) ?? [];
    if (rest === "oauth2/v2.0/token" && request.method === "POST") return this.#token(tenant, request);
    if (request.method !== "GET") return undefined;
    if (rest === "v2.0/.well-known/openid-configuration") {
      return this.#knows(tenant) ? json(200, this.#configuration(base)) : unknownTenant(tenant);
    }
    if (rest === "discovery/v2.0/keys") return json(200, { keys: [this.issuer.jwk] });
    return undefined;
  }

  #configuration(base: string): unknown {
    const root = `${base}/${this.id}`;
    return {
      token_endpoint: `${root}/oauth2/v2.0/token`,
      token_endpoint_auth_methods_supported: ["client_secret_post", "private_key_jwt", "client_secret_basic"],
      jwks_uri: `${root}/discovery/v2.0/keys`,
      response_modes_supported: ["query", "fragment", "form_post"],
      subject_types_supported: ["pairwise"],
      id_token_signing_alg_values_supported: ["RS256"],
      response_types_supported: ["code", "id_token"],
      scopes_supported: ["openid", "profile", "email", "offline_access"],
      issuer: `${root}/v2.0`,
      authorization_endpoint: `${root}/oauth2/v2.0/authorize`,
      device_authorization_endpoint: `${root}/oauth2/v2.0/devicecode`,
      end_session_endpoint: `${root}/oauth2/v2.0/logout`,
      tenant_region_scope: "EU",
    };
  }

  #instance(url: URL, base: string): WireReply {
    if (!url.searchParams.has("api-version") || !url.searchParams.has("authorization_endpoint")) {
      return refuse(400, "invalid_request", 900144, "The request must contain 'authorization_endpoint'.");
    }
    const { host } = new URL(base);
    return json(200, {
      tenant_discovery_endpoint: `${base}/${this.id}/v2.0/.well-known/openid-configuration`,
      "api-version": "1.1",
      metadata: [{ preferred_network: host, preferred_cache: host, aliases: [host] }],
    });
  }

  #token(tenant: string, request: WireRequest): WireReply {
    if (!this.#knows(tenant)) return unknownTenant(tenant);
    const form = new URLSearchParams(request.body.toString());
    const missing = ["grant_type", "client_id", "scope"].find((name) => !form.has(name));
    if (missing !== undefined) {
      const text = `The request body must contain the following parameter: '${missing}'.`;
      return refuse(400, "invalid_request", 900144, text);
    }
    if (form.get("grant_type") !== "client_credentials") {
      return refuse(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.");
    }
    const clientId = form.get("client_id") ?? "";
    if (clientId !== this.application.clientId) {
      const text = `Application with identifier '${clientId}' was not found in the directory '${this.id}'.`;
      return refuse(400, "unauthorized_client", 700016, text);
    }
    const refused = form.has("client_assertion") ? this.#checkAssertion(form) : this.#checkSecret(form);
    if (refused !== undefined) return refused;
    const scope = form.get("scope") ?? "";
    const resource = scope.endsWith("/.default") ? scope.slice(0, -"/.default".length) : undefined;
    if (resource === undefined) {
      const text = `The provided value for scope ${scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).`;
      return refuse(400, "invalid_scope", 1002012, text);
    }
    const access = this.accessToken(resource);
    const { lifetimeS } = this;
    return json(200, {
      token_type: "Bearer",
      expires_in: lifetimeS - 1,
      ext_expires_in: lifetimeS - 1,
      access_token: access,
    });
  }

  #checkSecret(form: URLSearchParams): WireReply | undefined {
    const secret = form.get("client_secret");
    if (secret === this.application.secret) return undefined;
    const text =
      secret === null
        ? "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
        : `Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '${this.application.clientId}'.`;
    return refuse(401, "invalid_client", secret === null ? 7000218 : 7000215, text);
  }

  #checkAssertion(form: URLSearchParams): WireReply | undefined {
    if (form.get("client_assertion_type") !== ASSERTION) {
      return refuse(400, "invalid_request", 900144, `client_assertion_type must be ${ASSERTION}`);
    }
    const claims = this.#cluster.read(form.get("client_assertion") ?? "");
    if (claims === undefined) {
      return refuse(
        401,
        "invalid_client",
        700027,
        "The certificate with identifier used to sign the client assertion is not registered on application.",
      );
    }
    const { issuer, subject } = this.application.federated;
    if (claims.aud !== EXCHANGE) {
      const text = `No matching federated identity record found for presented assertion audience '${claims.aud}'.`;
      return refuse(401, "invalid_client", 700212, text);
    }
    if (claims.iss !== issuer || claims.sub !== subject) {
      const text = `No matching federated identity record found for presented assertion subject '${claims.sub}'.`;
      return refuse(401, "invalid_client", 700213, text);
    }
    if (claims.exp * 1000 > Date.now()) return undefined;
    return refuse(401, "invalid_client", 700024, "Client assertion is not within its valid time range.");
  }

  #knows(tenant: string): boolean {
    return tenant.toLowerCase() === this.id;
  }
}

function unknownTenant(tenant: string): WireReply {
  return refuse(
    400,
    "invalid_request",
    90002,
    `Tenant '${tenant}' not found. Check to make sure you have the correct tenant ID.`,
  );
}

/** Source: learn.microsoft.com "Microsoft identity platform and the OAuth 2.0 client credentials flow", error response. */
function refuse(status: number, error: string, code: number, text: string): WireReply {
  const [trace, correlation] = [randomUUID(), randomUUID()];
  const timestamp = new Date().toISOString().replace("T", " ").replace(/\.\d+/, "");
  return json(status, {
    error,
    error_description: `AADSTS${code}: ${text} Trace ID: ${trace} Correlation ID: ${correlation} Timestamp: ${timestamp}`,
    error_codes: [code],
    timestamp,
    trace_id: trace,
    correlation_id: correlation,
    error_uri: `https://login.microsoftonline.com/error?code=${code}`,
  });
}

function json(status: number, body: unknown): WireReply {
  return { status, headers: { "content-type": "application/json; charset=utf-8" }, body: JSON.stringify(body) };
}

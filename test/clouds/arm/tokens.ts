import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID, sign, verify } from "node:crypto";
import { ArmError } from "./arm-error.ts";

export interface Claims {
  readonly aud: string;
  readonly iss: string;
  readonly sub: string;
  readonly exp: number;
  readonly nbf?: number;
  readonly oid?: string;
  readonly appid?: string;
  readonly tid?: string;
}

/** Both are Azure Resource Manager's. Source: learn.microsoft.com "Azure REST API reference", authentication. */
const ARM_AUDIENCES = [
  ...["https://management.azure.com", "https://management.azure.com/"],
  ...["https://management.core.windows.net", "https://management.core.windows.net/"],
];

/** Signs and reads JSON web tokens as one issuer. */
export class TokenIssuer {
  readonly #privateKey: KeyObject;
  readonly #publicKey: KeyObject;
  readonly #keyId = randomUUID();

  constructor() {
    this.#privateKey = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
    this.#publicKey = createPublicKey(this.#privateKey);
  }

  sign(claims: Claims): string {
    const header = { typ: "JWT", alg: "RS256", kid: this.#keyId };
    const text = `${encode(header)}.${encode({ iat: Math.floor(Date.now() / 1000), ...claims })}`;
    return `${text}.${sign("sha256", Buffer.from(text), this.#privateKey).toString("base64url")}`;
  }

  /** @returns undefined for a token that this issuer did not sign */
  read(token: string): Claims | undefined {
    const [header, claims, signature] = token.split(".");
    if (header === undefined || claims === undefined || signature === undefined) return undefined;
    const text = Buffer.from(`${header}.${claims}`);
    if (!verify("sha256", text, this.#publicKey, Buffer.from(signature, "base64url"))) return undefined;
    return JSON.parse(Buffer.from(claims, "base64url").toString()) as Claims;
  }

  /** For a jwks document. */
  get jwk(): Readonly<Record<string, unknown>> {
    return { ...this.#publicKey.export({ format: "jwk" }), kid: this.#keyId, use: "sig", alg: "RS256" };
  }
}

/**
 * Who calls Azure Resource Manager.
 * @throws ArmError 401, as ARM refuses a token
 */
export function checkBearer(
  authorization: string | undefined,
  trusted: { readonly issuer: TokenIssuer; readonly tenant: string },
): Claims {
  const challenge = (error: string): Record<string, string> => ({
    "www-authenticate": `Bearer authorization_uri="https://login.windows.net/", error="invalid_token", error_description="${error}"`,
  });
  const refuse = (code: string, message: string): ArmError =>
    new ArmError(401, code, message, { headers: challenge(message) });
  if (authorization === undefined) {
    throw refuse("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.");
  }
  const token = /^Bearer (\S+)$/i.exec(authorization)?.[1];
  if (token === undefined) {
    throw refuse(
      "AuthenticationFailedInvalidHeader",
      "Authentication failed. The 'Authorization' header is provided in an invalid format.",
    );
  }
  const claims = trusted.issuer.read(token);
  if (claims === undefined) throw refuse("InvalidAuthenticationToken", "The access token is invalid.");
  if (!ARM_AUDIENCES.includes(claims.aud)) {
    const message = `The access token has been obtained for wrong audience or resource '${claims.aud}'. It should exactly match with one of the allowed audiences '${ARM_AUDIENCES.join("','")}'.`;
    throw refuse("InvalidAuthenticationTokenAudience", message);
  }
  if (claims.tid !== trusted.tenant) {
    const message = `The access token is from the wrong issuer '${claims.iss}'. It must match the tenant '${trusted.tenant}' associated with this subscription.`;
    throw refuse("InvalidAuthenticationTokenTenant", message);
  }
  if (claims.exp * 1000 <= Date.now()) {
    const message = `The access token expiry UTC time '${new Date(claims.exp * 1000).toISOString()}' is earlier than current UTC time '${new Date().toISOString()}'.`;
    throw refuse("ExpiredAuthenticationToken", message);
  }
  return claims;
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

import { Fault } from "../base/fault.ts";

/** An image pull secret, decoded from base64. */
export interface PullSecret {
  /** For messages. */
  readonly name: string;
  /** `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`. */
  readonly type: string;
  readonly content: string;
}

/** More is dropped by the stock worker; here it is refused. Source: wire contract §3.5. */
export const MAX_AUTH_BYTES = 12_288;

interface Entry {
  readonly auth?: unknown;
  readonly username?: unknown;
  readonly password?: unknown;
}

/**
 * `auth.json` from pull secrets: user and password are folded into `auth`, entries without either are left out, later
 * secrets win. Service account's secrets come first, then the pod's.
 * @returns undefined when no secret says anything
 * @throws Fault invalid_argument naming the secret that is not usable; resource_exhausted when the result is too large
 */
export function renderAuthJson(secrets: readonly PullSecret[]): string | undefined {
  const auths: Record<string, { auth: string }> = {};
  for (const secret of secrets) {
    for (const [registry, entry] of Object.entries(entriesOf(secret))) {
      const auth = authOf(entry as Entry | null);
      if (auth !== undefined) auths[registry] = { auth };
    }
  }
  if (Object.keys(auths).length === 0) return undefined;
  const text = JSON.stringify({ auths });
  const bytes = Buffer.byteLength(text);
  if (bytes <= MAX_AUTH_BYTES) return text;
  throw new Fault(
    "resource_exhausted",
    `the pull secrets ${secrets.map((s) => s.name).join(", ")} make ${bytes} bytes, the pod VM image takes ${MAX_AUTH_BYTES}: give the pod or its service account fewer`,
  );
}

function entriesOf({ name, type, content }: PullSecret): Readonly<Record<string, unknown>> {
  let document: unknown;
  try {
    document = JSON.parse(content);
  } catch (cause) {
    throw new Fault("invalid_argument", `pull secret ${name} is not JSON`, {}, { cause });
  }
  // The old form is the table itself.
  const table = type.endsWith("dockercfg") ? document : (document as { auths?: unknown } | null)?.auths;
  if (typeof table !== "object" || table === null)
    throw new Fault("invalid_argument", `pull secret ${name} (${type}) has no table of registries`);
  return table as Readonly<Record<string, unknown>>;
}

function authOf(entry: Entry | null): string | undefined {
  const { auth, username, password } = entry ?? {};
  if (typeof username === "string" && typeof password === "string" && username !== "")
    return Buffer.from(`${username}:${password}`).toString("base64");
  return typeof auth === "string" && auth !== "" ? auth : undefined;
}

import { readFileSync } from "node:fs";
import { Fault } from "../../base/fault.ts";
import type { ImageSettings, RegistryLogin } from "../../guestwire/index.ts";
import type { ImageReference } from "./reference.ts";

/** How to log in at a registry. */
export type Login =
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  | { readonly kind: "refresh"; readonly token: string }
  | { readonly kind: "bearer"; readonly token: string };

/** Names under which docker's own login keeps Docker Hub. */
const DOCKER_HUB = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/**
 * Finds the login for an image: the entry with the longest part of its repository's path wins, as kubelet has it.
 * Source: Kubernetes, "Interpretation of config.json". An entry's key may be a URL.
 * @throws Fault invalid_argument for an entry that says nothing usable
 */
export function loginFor(auths: ImageSettings["auths"], reference: ImageReference): Login | undefined {
  let best: { readonly length: number; readonly key: string; readonly login: RegistryLogin } | undefined;
  const hosts = reference.registry === "docker.io" ? DOCKER_HUB : [reference.registry];
  for (const [key, login] of Object.entries(auths ?? {})) {
    const name = key
      .replace(/^https?:\/\//, "")
      .replace(/\/v[12]\/?$/, "")
      .replace(/\/+$/, "");
    const slash = name.indexOf("/");
    const host = slash < 0 ? name : name.slice(0, slash);
    const path = slash < 0 ? "" : name.slice(slash + 1);
    if (!hosts.some((h) => matches(host, h))) continue;
    if (path !== "" && reference.repository !== path && !reference.repository.startsWith(`${path}/`)) continue;
    if (best === undefined || path.length > best.length) best = { length: path.length, key, login };
  }
  return best === undefined ? undefined : usable(best.key, best.login);
}

/** `*` stands for one label of a host's name. */
function matches(pattern: string, host: string): boolean {
  if (!pattern.includes("*")) return pattern.toLowerCase() === host.toLowerCase();
  const parts = pattern.split(".");
  const labels = host.split(".");
  return parts.length === labels.length && parts.every((part, i) => part === "*" || part === labels[i]);
}

function usable(key: string, login: RegistryLogin): Login | undefined {
  if (login.registrytoken) return { kind: "bearer", token: login.registrytoken };
  if (login.identitytoken) return { kind: "refresh", token: login.identitytoken };
  if (login.username) return { kind: "basic", username: login.username, password: login.password ?? "" };
  if (!login.auth) return undefined;
  const text = Buffer.from(login.auth, "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 1)
    throw new Fault("invalid_argument", `the pull secret's entry for "${key}" is not base64 of user:password`);
  return { kind: "basic", username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, "") };
}

/**
 * Logins of a docker config file; a file that is missing or empty has none.
 * @throws Fault invalid_argument when it is no JSON
 */
export function readAuthFile(path: string): NonNullable<ImageSettings["auths"]> {
  return (
    (readJson(path, "the pod's pull secrets") as { auths?: NonNullable<ImageSettings["auths"]> } | null)?.auths ?? {}
  );
}

/** Settings that are part of the guest's image; a missing file has none. @throws Fault invalid_argument */
export function readSettingsFile(path: string): ImageSettings {
  return (readJson(path, "settings of the image") as ImageSettings | null) ?? {};
}

/** {} when the file is missing or empty. */
function readJson(path: string, what: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw e;
  }
  if (text.trim() === "") return {};
  try {
    return JSON.parse(text);
  } catch {
    // Without the cause: its message quotes what it read.
    throw new Fault("invalid_argument", `${path}, ${what}, is not JSON`);
  }
}

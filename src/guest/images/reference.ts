import { Fault } from "../../base/fault.ts";
import { checkDigest } from "./digest.ts";

/** An image's name, taken apart. */
export interface ImageReference {
  /** Host as credentials and settings name it: `docker.io`, `registry.example.com:5000`. */
  readonly registry: string;
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
  /** All of it, for messages. */
  readonly text: string;
}

/** Source: distribution/reference, grammar of names. */
const REPOSITORY = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[\w][\w.-]{0,127}$/;
const HOST = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;
const MAX_LENGTH = 1024;

/**
 * Reads `host[:port]/repository[:tag][@digest]`; a name without a host is Docker Hub's, without tag and digest "latest".
 * @throws Fault invalid_argument saying which part is wrong
 */
export function parseReference(text: string): ImageReference {
  const wrong = (what: string): Fault =>
    new Fault("invalid_argument", `image reference "${text.slice(0, 200)}" cannot be pulled: ${what}`);
  if (text.length === 0 || text.length > MAX_LENGTH) throw wrong(`it has ${text.length} characters`);
  if (/^(sha256:)?[0-9a-f]{64}$/.test(text)) throw wrong("it names no repository, only an id of this node");
  const at = text.indexOf("@");
  const digest = at < 0 ? undefined : checkDigest(text.slice(at + 1), `image reference "${text}"`);
  let name = at < 0 ? text : text.slice(0, at);
  let tag: string | undefined;
  const colon = name.lastIndexOf(":");
  if (colon > name.lastIndexOf("/")) {
    tag = name.slice(colon + 1);
    name = name.slice(0, colon);
    if (!TAG.test(tag)) throw wrong(`"${tag}" is no tag`);
  }
  const slash = name.indexOf("/");
  const first = name.slice(0, Math.max(slash, 0));
  const hasHost = slash > 0 && (/[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase());
  let registry = hasHost ? first : "docker.io";
  let repository = hasHost ? name.slice(slash + 1) : name;
  if (registry === "index.docker.io") registry = "docker.io";
  if (registry === "docker.io" && !repository.includes("/")) repository = `library/${repository}`;
  if (!HOST.test(registry)) throw wrong(`"${registry}" is no host`);
  if (!REPOSITORY.test(repository)) throw wrong(`"${repository}" is no repository`);
  if (tag === undefined && digest === undefined) tag = "latest";
  return { registry, repository, tag, digest, text };
}

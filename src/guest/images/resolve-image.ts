import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { backoffMs, ended, sleep } from "../../base/retry.ts";
import type { ImageSettings } from "../../guestwire/index.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { checkDigest, hashFor, verifyDigest } from "./digest.ts";
import { DEFAULT_STALL_MS } from "./http-client.ts";
import {
  choosePlatform,
  type Descriptor,
  guestArchitecture,
  MANIFEST_TYPES,
  MAX_DOCUMENT_BYTES,
  noPlatform,
  parseImageConfig,
  parseManifest,
} from "./manifest.ts";
import { readAll } from "./read-all.ts";
import type { ImageReference } from "./reference.ts";
import type { Registry } from "./registry.ts";

export interface ResolvedImage {
  /** Of what the reference names: index or manifest. */
  readonly digest: string;
  /** Lowest first. */
  readonly layers: readonly Descriptor[];
  /** Digest of each layer's content. */
  readonly diffIds: readonly string[];
}

export interface ResolveDeps {
  readonly reference: ImageReference;
  readonly registries: readonly Registry[];
  readonly settings: ImageSettings;
  readonly log: GuestLog;
}

/** An index may name an index; more levels than this are a loop. */
const MAX_INDEXES = 3;
const ATTEMPTS = 3;

/**
 * Finds what an image consists of for this machine. Everything is checked against its digest; a tag's own document has
 * none, but what the registry says of it must be true.
 * @throws Fault not_found (no such image), failed_precondition (not for this machine), aborted (other bytes than the
 * digest says), invalid_argument (a document that is none), and what the registry refuses
 */
export async function resolveImage(deps: ResolveDeps, call: Call): Promise<ResolvedImage> {
  const { reference } = deps;
  const what = `image ${reference.text}`;
  let name = reference.digest ?? (reference.tag as string);
  let digest: string | undefined;
  for (let depth = 0; depth <= MAX_INDEXES; depth += 1) {
    const found = await fetchDocument(deps, `manifests/${name}`, call);
    digest ??= found.digest;
    const document = parseManifest(found.text, found.contentType, what);
    if (document.kind === "index") {
      name = choosePlatform(document.entries, guestArchitecture(), what).digest;
      continue;
    }
    const { config: descriptor, layers } = document.manifest;
    const config = await fetchDocument(deps, `blobs/${descriptor.digest}`, call);
    const { diffIds, os, architecture } = parseImageConfig(config.text, `the config of ${what}`);
    if (os !== "linux" || architecture !== guestArchitecture())
      throw noPlatform(what, guestArchitecture(), `${os}/${architecture}`);
    if (diffIds.length !== layers.length)
      throw new Fault("invalid_argument", `${what} has ${layers.length} layers and ${diffIds.length} diff ids`);
    const encrypted = layers.find(({ mediaType }) => mediaType.endsWith("+encrypted"));
    if (encrypted !== undefined)
      throw new Fault("unimplemented", `${what} has encrypted layers, for which there are no keys here`);
    return { digest, layers, diffIds };
  }
  throw new Fault("invalid_argument", `${what} is an index of indexes, more than ${MAX_INDEXES} deep`);
}

interface Fetched {
  readonly text: string;
  readonly contentType: string;
  readonly digest: string;
}

/** From the first place that has it. The last one's error counts: that is the registry itself. */
async function fetchDocument(deps: ResolveDeps, path: string, call: Call): Promise<Fetched> {
  for (const [i, registry] of deps.registries.entries()) {
    try {
      return await fetchFrom(registry, deps, path, call);
    } catch (e) {
      if (i === deps.registries.length - 1 || call.signal.aborted) throw e;
      deps.log.warn("a mirror failed, the next place is asked", { path, err: Fault.from(e).fullMessage });
    }
  }
  throw new Fault("internal", `image ${deps.reference.text} has no registry`);
}

async function fetchFrom(registry: Registry, deps: ResolveDeps, path: string, call: Call): Promise<Fetched> {
  for (let failures = 0; ; failures += 1) {
    try {
      return await fetchOnce(registry, deps, path, call);
    } catch (e) {
      if (call.signal.aborted) throw ended(call, e);
      const fault = Fault.from(e);
      if (!fault.retryable || failures + 1 >= (deps.settings.attempts ?? ATTEMPTS)) throw fault;
      await sleep(
        Math.max(backoffMs(failures, 250, 5_000), 1000 * Math.min(60, Number(fault.context.retryAfter ?? 0))),
        call,
      );
    }
  }
}

async function fetchOnce(registry: Registry, deps: ResolveDeps, path: string, call: Call): Promise<Fetched> {
  const { reference, settings } = deps;
  const reply = await registry.get(
    path,
    { accept: path.startsWith("manifests/") ? MANIFEST_TYPES.join(", ") : "*/*" },
    call,
  );
  const bytes = await readAll(reply, MAX_DOCUMENT_BYTES, settings.stallMs ?? DEFAULT_STALL_MS);
  const name = path.slice(path.indexOf("/") + 1);
  const what = `${path.startsWith("manifests/") ? "the manifest" : "the config"} of image ${reference.text} from registry ${registry.host}`;
  let digest: string;
  if (name.includes(":")) {
    digest = name;
    verifyDigest(bytes, digest, what);
  } else {
    const said = reply.headers["docker-content-digest"];
    digest = `sha256:${hashFor("sha256:").update(bytes).digest("hex")}`;
    if (typeof said === "string" && said !== "") {
      verifyDigest(bytes, checkDigest(said, what), what);
      digest = said;
    }
  }
  return { text: bytes.toString("utf8"), contentType: reply.headers["content-type"] ?? "", digest };
}

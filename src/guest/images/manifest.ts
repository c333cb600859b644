import { Fault } from "../../base/fault.ts";
import { checkDigest } from "./digest.ts";

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface Manifest {
  readonly config: Descriptor;
  /** Lowest first. */
  readonly layers: readonly Descriptor[];
}

export interface IndexEntry extends Descriptor {
  readonly platform: { readonly os: string; readonly architecture: string; readonly variant: string } | undefined;
}

/** What a manifests endpoint gave. */
export type ManifestDocument =
  | { readonly kind: "index"; readonly entries: readonly IndexEntry[] }
  | { readonly kind: "manifest"; readonly manifest: Manifest };

const OCI = "application/vnd.oci.image";
const DOCKER = "application/vnd.docker.distribution.manifest";
/** For the Accept header. */
export const MANIFEST_TYPES = [
  `${OCI}.index.v1+json`,
  `${OCI}.manifest.v1+json`,
  `${DOCKER}.list.v2+json`,
  `${DOCKER}.v2+json`,
] as const;
/** Largest manifest, index or image config that is read, bytes. Source: registries take 4 MiB. */
export const MAX_DOCUMENT_BYTES = 4 << 20;
/** overlay takes 500; lowerdir has to fit into a page with each of them. */
const MAX_LAYERS = 127;

/**
 * Reads a manifest or index.
 * @throws Fault invalid_argument naming what is wrong with it, unimplemented for kinds that are no container image
 */
export function parseManifest(text: string, contentType: string, what: string): ManifestDocument {
  const document = asObject(parseJson(text, what), what);
  const type = typeof document.mediaType === "string" ? document.mediaType : contentType.split(";")[0]?.trim();
  if (Array.isArray(document.manifests)) {
    return { kind: "index", entries: document.manifests.map((m, i) => entryOf(m, `${what}, manifests[${i}]`)) };
  }
  if (document.schemaVersion !== 2 || !Array.isArray(document.layers)) {
    throw new Fault("unimplemented", `${what} is of type "${type}", which is no image manifest that is known here`);
  }
  if (document.layers.length > MAX_LAYERS)
    throw new Fault("unimplemented", `${what} has ${document.layers.length} layers, ${MAX_LAYERS} are possible here`);
  return {
    kind: "manifest",
    manifest: {
      config: descriptorOf(document.config, `${what}, config`),
      layers: document.layers.map((l, i) => descriptorOf(l, `${what}, layers[${i}]`)),
    },
  };
}

/** What of an image's config is needed to check its layers. @throws Fault invalid_argument */
export function parseImageConfig(
  text: string,
  what: string,
): { readonly diffIds: readonly string[]; readonly os: string; readonly architecture: string } {
  const config = asObject(parseJson(text, what), what);
  const rootfs = asObject(config.rootfs, `${what}, rootfs`);
  const ids = rootfs.diff_ids;
  if (!Array.isArray(ids)) throw new Fault("invalid_argument", `${what} has no rootfs.diff_ids`);
  return {
    diffIds: ids.map((id, i) => checkDigest(String(id), `${what}, diff_ids[${i}]`)),
    os: textOf(config.os),
    architecture: textOf(config.architecture),
  };
}

/** Source: OCI image specification, platform: names are Go's. */
export function guestArchitecture(arch: string = process.arch): string {
  return arch === "x64" ? "amd64" : arch;
}

/**
 * The entry for this machine; of several variants the one that asks least of the processor.
 * @throws Fault failed_precondition naming the platforms that there are
 */
export function choosePlatform(entries: readonly IndexEntry[], architecture: string, what: string): IndexEntry {
  const fitting = entries
    .filter((e) => e.platform === undefined || (e.platform.os === "linux" && e.platform.architecture === architecture))
    .sort((a, b) => rank(a) - rank(b));
  const [chosen] = fitting;
  if (chosen !== undefined) return chosen;
  const there = entries
    .flatMap(({ platform: p }) => (p === undefined || p.os === "unknown" ? [] : [platformText(p)]))
    .join(", ");
  throw noPlatform(what, architecture, there);
}

export function noPlatform(what: string, architecture: string, there: string): Fault {
  return new Fault(
    "failed_precondition",
    `${what} has nothing for linux/${architecture}, which the pod VM is: it has ${there || "no platform"}`,
  );
}

function rank({ platform }: IndexEntry): number {
  if (platform === undefined) return 1000;
  const version = Number(/^v(\d+)$/.exec(platform.variant)?.[1] ?? 0);
  return Number.isFinite(version) ? version : 999;
}

function platformText(p: { readonly os: string; readonly architecture: string; readonly variant: string }): string {
  return `${p.os}/${p.architecture}${p.variant === "" ? "" : `/${p.variant}`}`;
}

function entryOf(value: unknown, what: string): IndexEntry {
  const platform = (value as { platform?: Record<string, unknown> } | null)?.platform;
  return {
    ...descriptorOf(value, what),
    platform:
      typeof platform === "object" && platform !== null
        ? { os: textOf(platform.os), architecture: textOf(platform.architecture), variant: textOf(platform.variant) }
        : undefined,
  };
}

function descriptorOf(value: unknown, what: string): Descriptor {
  const { mediaType, digest, size } = asObject(value, what);
  if (typeof digest !== "string") throw new Fault("invalid_argument", `${what} has no digest`);
  if (!Number.isSafeInteger(size) || (size as number) < 0)
    throw new Fault("invalid_argument", `${what} has size "${String(size)}", which is none`);
  return { mediaType: textOf(mediaType), digest: checkDigest(digest, what), size: size as number };
}

function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Fault("invalid_argument", `${what} is not JSON`, {}, { cause });
  }
}

function asObject(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new Fault("invalid_argument", `${what} is not a JSON object`);
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

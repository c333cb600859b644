import { stat } from "node:fs/promises";
import type { TSchema } from "typebox";
import { loadProvider } from "../../providers/registry.ts";
import type { Call } from "../base/call.ts";
import { parseConfig } from "../base/config.ts";
import { Fault } from "../base/fault.ts";
import { createLogger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { readDisks, sha256Of } from "../podvmimage/index.ts";
import type {
  DiskFormat,
  ImagePublisher,
  ImageToPublish,
  PublisherPlugin,
  PublishProgress,
} from "../provider/index.ts";
import { loadAdaptorConfig } from "./adaptor.ts";

/** Which account and place of a cloud is meant. */
export interface PublishPlace {
  /** TOML of the adaptor, whose `[providers.<name>]` has keys that publishing takes as well. */
  readonly config?: string;
  /** `key=value` of the publisher's own configuration; wins over the file. */
  readonly set: readonly string[];
}

export interface ImagePublishOptions extends PublishPlace {
  /** Directory with disks.json. */
  readonly dir: string;
  /** Another disk than the directory's. */
  readonly file?: string;
  readonly name?: string;
  readonly tee?: string;
  /** `key=value` */
  readonly tag: readonly string[];
  readonly json?: boolean;
}

const TEES = ["none", "sev-snp", "tdx"] as const;
const ARCHS: Readonly<Record<string, ImageToPublish["arch"]>> = { x64: "x86_64", arm64: "arm64" };

/** `kata-remote image publish <provider>` @throws Fault invalid_argument, failed_precondition, and the publisher's */
export async function imagePublish(provider: string, options: ImagePublishOptions, call: Call): Promise<void> {
  const { plugin, config, tee } = await placeOf(provider, options);
  const image = await imageOf(plugin, options, tee, call);
  await using publisher = closing(await plugin.open(config, { log: createLogger("image"), now: () => new Date() }));
  process.stderr.write(`kata-remote image: publishing ${image.file} as ${image.name}\n`);
  const published = await publisher.value.publish(image, call, progressLine());
  process.stderr.write(`kata-remote image: ${published.imageId} ${published.created ? "is made" : "was there"}\n`);
  process.stdout.write(
    options.json === true ? `${JSON.stringify({ ...published, name: image.name })}\n` : `${published.imageId}\n`,
  );
}

/** `kata-remote image unpublish <provider> <image>` @throws Fault as imagePublish */
export async function imageUnpublish(
  provider: string,
  imageId: string,
  place: PublishPlace,
  call: Call,
): Promise<void> {
  const { plugin, config } = await placeOf(provider, place);
  await using publisher = closing(await plugin.open(config, { log: createLogger("image"), now: () => new Date() }));
  await publisher.value.unpublish(imageId, call);
  process.stderr.write(`kata-remote image: ${imageId} is removed\n`);
}

/** The publisher's configuration: keys that the provider has as well, and over them what the command line says. */
async function placeOf(
  provider: string,
  place: PublishPlace,
): Promise<{ readonly plugin: PublisherPlugin; readonly config: unknown; readonly tee: unknown }> {
  const { publisher: plugin, configSchema } = await loadProvider(provider);
  if (plugin === undefined) {
    throw new Fault("unimplemented", `provider "${provider}" takes images from files: there is nothing to publish`);
  }
  const given = (await loadAdaptorConfig(place.config)).providers[provider];
  const ofProvider: Readonly<Record<string, unknown>> = typeof given === "object" && given !== null ? { ...given } : {};
  const keys = properties(plugin.configSchema);
  const shared = Object.entries(ofProvider).filter(([key]) => Object.hasOwn(keys, key));
  const said = place.set.map((text) => settingOf(text, keys));
  const config = parseConfig(
    plugin.configSchema,
    Object.fromEntries([...shared, ...said]),
    `image publish ${provider}`,
  );
  return { plugin, config, tee: ofProvider.tee ?? properties(configSchema).tee?.default };
}

async function imageOf(
  plugin: PublisherPlugin,
  options: ImagePublishOptions,
  configuredTee: unknown,
  call: Call,
): Promise<ImageToPublish> {
  const { file, format, contentHash, arch } = await diskOf(plugin.formats, options, call);
  const tee = options.tee === undefined ? teeOf(configuredTee) : TEES.find((t) => t === options.tee);
  if (tee === undefined)
    throw new Fault("invalid_argument", `--tee: "${options.tee}" is not one of ${TEES.join(", ")}`);
  const name = options.name ?? `kata-remote-${VERSION}-${contentHash.slice(0, 12)}`;
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,78}[A-Za-z0-9]$/.test(name)) {
    throw new Fault("invalid_argument", `--name: "${name}" may have 2 to 80 letters, digits, ".", "_" and "-"`);
  }
  const tags = Object.fromEntries(options.tag.map((text) => pairOf(text, "--tag")));
  return { file, format, contentHash, name, arch, tee, tags };
}

/** A provider without the setting has no confidential VMs; one that takes any kind of them gets an image for the usual one. */
function teeOf(configured: unknown): ImageToPublish["tee"] {
  return configured === undefined ? "none" : (TEES.find((t) => t === configured) ?? "sev-snp");
}

/** The disk that the publisher likes best. */
async function diskOf(
  formats: readonly DiskFormat[],
  { dir, file }: ImagePublishOptions,
  call: Call,
): Promise<Pick<ImageToPublish, "file" | "format" | "contentHash" | "arch">> {
  const arch = (node: string): ImageToPublish["arch"] => ARCHS[node] ?? "x86_64";
  if (file !== undefined) {
    const format = formats.find((f) => file.endsWith(`.${f}`));
    if (format === undefined) {
      throw new Fault("invalid_argument", `--file: ${file} must end in ${formats.map((f) => `.${f}`).join(" or ")}`);
    }
    await stat(file);
    return { file, format, contentHash: await sha256Of(file, call), arch: arch(process.arch) };
  }
  const built = await readDisks(dir);
  for (const format of formats) {
    const disk = built?.disks[format];
    if (built !== undefined && disk !== undefined) {
      return { file: disk.path, format, contentHash: disk.sha256, arch: arch(built.arch) };
    }
  }
  const [best] = formats;
  throw new Fault(
    "failed_precondition",
    `${dir} has no disk to publish: run "kata-remote image build --format ${best} --out ${dir}"`,
  );
}

interface Property {
  readonly type?: unknown;
  readonly default?: unknown;
}

function properties(schema: TSchema): Readonly<Record<string, Property>> {
  return (schema as { readonly properties?: Readonly<Record<string, Property>> }).properties ?? {};
}

function pairOf(text: string, option: string): readonly [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new Fault("invalid_argument", `${option}: "${text}" is not key=value`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** A value as its schema wants it: text stays text, everything else is JSON. */
function settingOf(text: string, keys: Readonly<Record<string, Property>>): readonly [string, unknown] {
  const [key, value] = pairOf(text, "--set");
  if (keys[key]?.type === "string") return [key, value];
  try {
    return [key, JSON.parse(value) as unknown];
  } catch {
    return [key, value]; // the schema says what it should be
  }
}

function closing(value: ImagePublisher): AsyncDisposable & { readonly value: ImagePublisher } {
  return { value, [Symbol.asyncDispose]: () => value.close() };
}

/** Writes progress for people: a line for each step, and for each tenth of a long one. */
function progressLine(): (progress: PublishProgress) => void {
  let last = "";
  return ({ step, doneBytes, totalBytes }) => {
    const share = totalBytes === undefined || totalBytes === 0 ? undefined : (doneBytes ?? 0) / totalBytes;
    const text = share === undefined ? step : `${step} ${Math.floor(share * 10) * 10}%`;
    if (text === last) return;
    last = text;
    process.stderr.write(`kata-remote image: ${text}\n`);
  };
}

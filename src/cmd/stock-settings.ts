import { Fault } from "../base/fault.ts";
import type { Overlay } from "../base/overlay.ts";
import { PROVIDER_SETTINGS } from "./stock-providers.ts";
import { COMMON_SETTINGS, STOCK_PREFIXES, type StockSetting } from "./stock-table.ts";

/** What the stock adaptor's command line and environment mean for us. */
export interface StockSettings {
  /** Laid over the configuration files before these are checked. */
  readonly node: Overlay;
  readonly adaptor: Overlay;
  /** Variables that a cloud's own library is to find: what was given as a flag. */
  readonly env: Readonly<Record<string, string>>;
  /** For people, each a sentence. */
  readonly warnings: readonly string[];
}

/** Units of Go's durations, ms. */
const UNITS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};
/** What Go takes for a boolean flag; as a variable everything but 1 and true is false. */
const GO_BOOL = /^([01tTfF]|true|TRUE|True|false|FALSE|False)$/;
const CLUSTER_BYTES = 63;

/**
 * Reads what an existing DaemonSet gives the stock adaptor: `<provider> [flags]` and the environment. A flag wins over
 * the environment, lists of both are joined, an empty variable counts as none. A variable that cannot be read is named and
 * left out; a flag that cannot be read is an error.
 * @throws Fault invalid_argument naming the flag
 * Source: wire contract §2.1
 */
export function readStockSettings(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): StockSettings {
  const words = [...argv];
  const provider = words[0]?.startsWith("-") === false ? (words.shift() ?? "") : (env.CLOUD_PROVIDER ?? "");
  const table = [...COMMON_SETTINGS, ...(PROVIDER_SETTINGS[provider] ?? [])];
  const flags = readFlags(words, table, provider);
  const roots: Readonly<Record<string, Record<string, unknown>>> = { node: { stock: {} }, adaptor: {}, env: {} };
  const warnings: string[] = [];
  const useTemplate = isTrue(flags.get("use-lt")?.at(-1) ?? env.USE_PODVM_LAUNCHTEMPLATE ?? "");
  for (const setting of table) {
    const given = givenFor(setting, flags, env, warnings);
    if (given === undefined) continue;
    if (setting.to === undefined) {
      // A switch that is off asks for nothing.
      if (setting.does === undefined && given !== false)
        warnings.push(`${nameOf(setting)} has no meaning here: ${setting.note}`);
      continue;
    }
    const value = translate(setting, given, useTemplate);
    const [where, path] = setting.to.split(":") as [string, string];
    if (value !== undefined) put(roots[where] ?? {}, path.split("."), value);
  }
  const { node = {}, adaptor = {} } = roots;
  if (provider !== "") adaptor.provider = provider;
  const known = new Set(table.map((s) => s.env));
  const unknown = Object.keys(env).filter((name) => STOCK_PREFIXES.test(name) && !known.has(name) && env[name] !== "");
  if (unknown.length > 0)
    warnings.push(
      `environment variables that are not known here are ignored: ${unknown.sort().join(", ")}; a provider's own settings belong into [providers.${provider || "<name>"}] of adaptor.toml`,
    );
  return { node, adaptor, env: roots.env as Record<string, string>, warnings };
}

function nameOf({ flag, env }: StockSetting): string {
  return flag === undefined ? (env ?? "") : `${flag} (${env ?? "flag"})`;
}

/** Go's forms: -x v, --x v, -x=v, and -x alone for booleans. */
function readFlags(words: readonly string[], table: readonly StockSetting[], provider: string): Map<string, string[]> {
  const flags = new Map<string, string[]>();
  for (let at = 0; at < words.length; at++) {
    const [, name, inline] = /^--?([a-z][a-z0-9-]*)(?:=([\s\S]*))?$/.exec(words[at] ?? "") ?? [];
    const setting = table.find((s) => s.flag === name);
    if (name === undefined || setting === undefined)
      throw new Fault(
        "invalid_argument",
        `${words[at]} is no flag of the stock adaptor that is known here for provider "${provider}"`,
      );
    const value = inline ?? (setting.type === "bool" ? "true" : words[++at]);
    if (value === undefined) throw new Fault("invalid_argument", `flag -${name} needs a value`);
    if (convert(setting, value) === undefined || (setting.type === "bool" && !GO_BOOL.test(value)))
      throw new Fault("invalid_argument", `flag -${name} cannot be "${value}"`);
    flags.set(name, [...(flags.get(name) ?? []), value]);
  }
  return flags;
}

function givenFor(
  setting: StockSetting,
  flags: ReadonlyMap<string, readonly string[]>,
  env: Readonly<Record<string, string | undefined>>,
  warnings: string[],
): unknown {
  const text = setting.env === undefined ? undefined : env[setting.env];
  const fromEnv = text === undefined || text === "" ? undefined : convert(setting, text);
  if (fromEnv === undefined && text !== undefined && text !== "")
    warnings.push(`${setting.env}="${text}" is not a valid ${setting.type}: it is ignored`);
  const said = (setting.flag === undefined ? undefined : flags.get(setting.flag)) ?? [];
  const values = said.map((value) => (setting.type === "bool" ? /^[1tT]/.test(value) : convert(setting, value)));
  if (setting.type === "list" && values.length > 0) return [fromEnv ?? [], ...values].flat();
  if (setting.type === "map" && values.length > 0) return Object.assign({}, fromEnv, ...values);
  return values.at(-1) ?? fromEnv;
}

function convert({ type }: StockSetting, text: string): unknown {
  switch (type) {
    case "text":
      return text;
    case "int":
      return /^-?\d+$/.test(text) ? Number(text) : undefined;
    case "bool":
      return isTrue(text);
    case "duration":
      return duration(text);
    case "list":
      return text
        .split(",")
        .map((part) => part.trim())
        .filter((part) => part !== "");
    case "map": {
      const pairs = text.split(",").map((pair) => /^([^=]+)=([\s\S]*)$/.exec(pair));
      if (pairs.some((pair) => pair === null)) return undefined;
      return Object.fromEntries(pairs.map((pair) => [pair?.[1]?.trim() ?? "", pair?.[2]?.trim() ?? ""]));
    }
  }
}

function isTrue(text: string): boolean {
  return text === "1" || text.toLowerCase() === "true";
}

function duration(text: string): number | undefined {
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let ms = 0;
  for (const [, amount, unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g))
    ms += Number(amount) * (UNITS[unit] ?? 0);
  return Math.round(ms);
}

/** Where ours says the same thing in another way. */
function translate({ to }: StockSetting, value: unknown, useTemplate: boolean): unknown {
  switch (to) {
    case "adaptor:cluster":
      return clusterOf(String(value));
    case "adaptor:limits.sandboxes":
      return Number(value) > 0 ? value : undefined; // negative: not advertised, which is no limit
    case "adaptor:providers.aws.rootDiskGiB":
    case "adaptor:providers.azure.rootDiskGiB":
      return value === 0 ? undefined : value;
    case "adaptor:providers.aws.tee":
    case "adaptor:providers.azure.tee":
      return value === true ? "none" : undefined;
    case "adaptor:providers.aws.launchTemplate.name":
      return useTemplate ? value : undefined;
    default:
      return value;
  }
}

/** A tag that no other node has: its adaptor would delete what it takes for orphans. */
export function clusterOf(nodeName: string): string {
  const plain = nodeName.toLowerCase().replace(/[^a-z0-9-]/g, "-");
  return `node-${plain}`.slice(0, CLUSTER_BYTES).replace(/-+$/, "");
}

function put(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let table = target;
  for (const key of path.slice(0, -1)) {
    table[key] ??= {};
    table = table[key] as Record<string, unknown>;
  }
  table[path.at(-1) ?? ""] = value;
}

import { type Static, Type } from "typebox";
import { parse } from "yaml";
import { parseConfig } from "../../base/config.ts";
import { Fault } from "../../base/fault.ts";

/** Where the stock adaptor's document puts things. Source: peer-pods contract, user-data. */
const DIRECTORY = "/run/peerpod/";
const APF = "apf.json";
const SCRATCH = "scratch-space.marker";
const INITDATA = "initdata";
/** What the stock image's program takes; others it skips. */
const KNOWN: ReadonlySet<string> = new Set(["aa.toml", "cdh.toml", APF, "auth.json", INITDATA, SCRATCH]);
/** Azure's limit, the largest of the clouds'. */
const MAX_BYTES = 64 * 1024;

/** apf.json. Keys that are not used here are left alone, as the stock forwarder does. */
const Apf = Type.Object({
  "pod-network": Type.Unknown(),
  "pod-namespace": Type.Optional(Type.String()),
  "pod-name": Type.Optional(Type.String()),
  "tls-server-key": Type.Optional(Type.String()),
  "tls-server-cert": Type.Optional(Type.String()),
  "tls-client-ca": Type.Optional(Type.String()),
  "tls-min-version": Type.Optional(Type.String()),
  "tls-cipher-suites": Type.Optional(Type.Union([Type.Null(), Type.Array(Type.String())])),
});
export type Apf = Static<typeof Apf>;

/** What the stock adaptor tells a pod VM. */
export interface StockSeed {
  readonly apf: Apf;
  /** By their names below /run/peerpod: auth.json, aa.toml, cdh.toml. */
  readonly files: ReadonlyMap<string, string>;
}

/**
 * Reads the stock adaptor's cloud-config document.
 * @throws Fault invalid_argument saying what is wrong with it; unimplemented for what only the stock image has
 */
export function parseStockSeed(text: string): StockSeed {
  if (Buffer.byteLength(text) > MAX_BYTES) throw invalid(`it is longer than ${MAX_BYTES} bytes`);
  const files = writtenFiles(text);
  const apf = files.get(APF);
  if (apf === undefined) throw invalid(`it writes no ${DIRECTORY}${APF}`);
  if (files.has(SCRATCH)) throw unsupported(SCRATCH, "an encrypted scratch disk", "switch ENABLE_SCRATCH_SPACE off");
  if (files.has(INITDATA))
    throw unsupported(INITDATA, "initdata, whose policy and measurement it could not keep", "send none");
  return {
    apf: parseConfig(Apf, parseJson(apf), `${DIRECTORY}${APF}`),
    files: new Map([...files].filter(([name]) => name !== APF)),
  };
}

function writtenFiles(text: string): ReadonlyMap<string, string> {
  let document: unknown;
  try {
    document = parse(text);
  } catch (cause) {
    throw new Fault("invalid_argument", "the stock adaptor's user-data is not valid YAML", {}, { cause });
  }
  const entries = (document as { write_files?: unknown } | null)?.write_files;
  if (!Array.isArray(entries)) throw invalid("write_files is not a list");
  const files = new Map<string, string>();
  for (const entry of entries as readonly unknown[]) {
    const { path, content } = (entry ?? {}) as { path?: unknown; content?: unknown };
    if (typeof path !== "string" || !path.startsWith(DIRECTORY)) continue;
    const name = path.slice(DIRECTORY.length);
    if (!KNOWN.has(name)) continue;
    if (content !== undefined && content !== null && typeof content !== "string") throw invalid(`${path} is not text`);
    files.set(name, content ?? "");
  }
  return files;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Fault("invalid_argument", `${DIRECTORY}${APF} in user-data is not JSON`, {}, { cause });
  }
}

function invalid(problem: string): Fault {
  return new Fault("invalid_argument", `the stock adaptor's user-data cannot be used: ${problem}`);
}

function unsupported(name: string, what: string, remedy: string): Fault {
  return new Fault(
    "unimplemented",
    `user-data has ${DIRECTORY}${name}, but this image does not have ${what}: ${remedy}, or use the stock image`,
  );
}

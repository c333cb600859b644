import { type Static, Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { Fault } from "../../base/fault.ts";
import { writtenFiles } from "../../userdata/writefiles/index.ts";

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
  const files = stockFiles(text);
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

function stockFiles(text: string): ReadonlyMap<string, string> {
  const known = (path: string): boolean => path.startsWith(DIRECTORY) && KNOWN.has(path.slice(DIRECTORY.length));
  return new Map([...writtenFiles(text, known)].map(([path, content = ""]) => [path.slice(DIRECTORY.length), content]));
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

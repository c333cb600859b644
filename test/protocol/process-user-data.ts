import { createHash } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { parse as parseToml } from "smol-toml";
import { parseDocument } from "yaml";

/** Files that the stock image takes from user-data; others are logged and skipped. Source: wire contract §3.5. */
const ALLOWED = ["aa.toml", "cdh.toml", "apf.json", "auth.json", "initdata", "scratch-space.marker"].map(
  (name) => `/run/peerpod/${name}`,
);

/** What the stock image's first unit makes of user-data. */
export interface Provisioned {
  readonly files: ReadonlyMap<string, string>;
  /** Lower-case hex over the decompressed TOML; the dummy's when there was none. */
  readonly initdataDigest: string;
}

/**
 * process-user-data as its contract says, to the last strictness: only `write_files` with `path` and `content`, no key
 * twice, and afterwards aa.toml must be there, since the rest of the boot waits for it.
 * @throws Error, where the real one would retry until it gives up
 */
export function processUserData(document: string): Provisioned {
  if (document.split("\n", 1)[0] !== "#cloud-config") throw new Error("first line is not #cloud-config");
  const parsed = parseDocument(document, { strict: true, uniqueKeys: true });
  if (parsed.errors.length > 0) throw parsed.errors[0] as Error;
  const root = (parsed.toJS() ?? {}) as Record<string, unknown>;
  refuseOthers(root, ["write_files"]);
  const files = new Map<string, string>();
  for (const entry of (root.write_files ?? []) as Record<string, unknown>[]) {
    refuseOthers(entry, ["path", "content"]);
    const { path, content } = entry;
    if (typeof path !== "string") throw new Error("an entry has no path");
    if (content !== undefined && typeof content !== "string") throw new Error(`${path}: content is no string`);
    if (ALLOWED.includes(path)) files.set(path, content ?? "");
  }
  const initdata = files.get("/run/peerpod/initdata");
  const toml =
    initdata === undefined
      ? 'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"aa.toml" = ""\n'
      : gunzipSync(Buffer.from(initdata.trim(), "base64")).toString("utf8");
  const { algorithm, data } = parseToml(toml) as { algorithm: string; data: Record<string, string> };
  for (const name of ["aa.toml", "cdh.toml", "policy.rego"])
    if (data[name] !== undefined) files.set(`/run/peerpod/${name}`, data[name]);
  if (!files.has("/run/peerpod/aa.toml")) throw new Error("aa.toml never appears: the boot hangs here");
  return { files, initdataDigest: createHash(algorithm).update(toml).digest("hex") };
}

function refuseOthers(object: Record<string, unknown>, known: readonly string[]): void {
  const other = Object.keys(object).find((key) => !known.includes(key));
  if (other !== undefined) throw new Error(`field ${other} not found in type`);
}

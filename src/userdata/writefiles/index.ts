import { parse } from "yaml";
import { Fault } from "../../base/fault.ts";

/**
 * The files that a cloud-config document has written, by path; undefined is one without content. A folder of its own: this
 * loads the YAML parser, which whoever finds what it needs without one does not want, and bundled, a dynamic import of the
 * package itself (CommonJS) gives nothing but `default`.
 * @param wanted Other entries may be anything. Of two for one path the last counts, as with cloud-init
 * @throws Fault invalid_argument
 */
export function writtenFiles(text: string, wanted: (path: string) => boolean): ReadonlyMap<string, string | undefined> {
  let document: unknown;
  try {
    document = parse(text);
  } catch (cause) {
    throw new Fault("invalid_argument", "user-data is not valid YAML", {}, { cause });
  }
  const entries = (document as { write_files?: unknown } | null)?.write_files;
  if (!Array.isArray(entries)) throw invalid("write_files is not a list");
  const files = new Map<string, string | undefined>();
  for (const entry of entries as readonly unknown[]) {
    const { path, content, encoding } = (entry ?? {}) as { path?: unknown; content?: unknown; encoding?: unknown };
    if (typeof path === "string" && wanted(path)) files.set(path, decoded(path, content ?? undefined, encoding));
  }
  return files;
}

function decoded(path: string, content: unknown, encoding: unknown): string | undefined {
  if (content === undefined) return undefined;
  if (typeof content !== "string") throw invalid(`${path} is not text`);
  return encoding === "b64" || encoding === "base64" ? Buffer.from(content, "base64").toString("utf8") : content;
}

function invalid(problem: string): Fault {
  return new Fault("invalid_argument", `user-data cannot be used: ${problem}`);
}

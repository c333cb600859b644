import { isAbsolute } from "node:path";
import { Fault } from "../base/fault.ts";

/** Where one of containerd's stdio strings points. */
export type StdioTarget =
  | { readonly kind: "none" }
  | { readonly kind: "path"; readonly path: string }
  | { readonly kind: "append"; readonly path: string }
  | { readonly kind: "logger"; readonly path: string; readonly args: readonly string[] };

/**
 * Reads "" (nothing), a path or `fifo://path` (a FIFO that containerd made), `file://path` (appended to) and
 * `binary://path?name=value` (a program with these arguments takes the output).
 * @throws Fault invalid_argument | unimplemented naming the stream and the value
 * Source: containerd runtime/v2 shim v2 stdio URIs.
 */
export function parseStdio(stream: "stdin" | "stdout" | "stderr", text: string): StdioTarget {
  if (text === "") return { kind: "none" };
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//.exec(text)?.[1];
  if (scheme === undefined) return { kind: "path", path: absolute(stream, text, text) };
  const path = decode(stream, text, text.slice(scheme.length + 3));
  if (scheme === "fifo") return { kind: "path", path: absolute(stream, text, path) };
  if (scheme === "file" && stream !== "stdin") return { kind: "append", path: absolute(stream, text, path) };
  if (scheme === "binary" && stream !== "stdin") {
    return { kind: "logger", path: absolute(stream, text, path), args: argumentsOf(text) };
  }
  throw new Fault(
    "unimplemented",
    `${stream} "${text}" is not supported: a FIFO path, fifo://, file:// or binary:// (both for output only) is`,
    {
      stream,
    },
  );
}

function decode(stream: string, text: string, rest: string): string {
  const path = rest.split("?", 1)[0] ?? "";
  try {
    return decodeURIComponent(path);
  } catch (cause) {
    throw new Fault("invalid_argument", `${stream} "${text}" has a broken %-escape`, { stream }, { cause });
  }
}

/** Each name, and its first value. Source: containerd pkg/process NewBinaryCmd; there in no order. */
function argumentsOf(text: string): string[] {
  const query = text.includes("?") ? text.slice(text.indexOf("?")) : "";
  const found = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(query)) if (!found.has(name)) found.set(name, value);
  return [...found].flat();
}

function absolute(stream: string, text: string, path: string): string {
  if (isAbsolute(path)) return path;
  throw new Fault("invalid_argument", `${stream} "${text}" must be an absolute path`, { stream });
}

import { readdir, readFile, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parse as parseToml, TomlError } from "smol-toml";
import { Fault } from "../../base/fault.ts";

export type TomlTable = Record<string, unknown>;

/** @throws Fault invalid_argument naming origin and line */
export function parseTable(text: string, origin: string): TomlTable {
  try {
    return parseToml(text) as TomlTable;
  } catch (cause) {
    const where = cause instanceof TomlError ? ` (line ${cause.line})` : "";
    throw new Fault(
      "invalid_argument",
      `${origin} is not TOML${where}; it must be a kata-remote runtime file or Kata's configuration.toml`,
      {},
      { cause },
    );
  }
}

/**
 * Reads a file and, as Kata does, what `config.d` beside it changes: its files in alphabetical order, tables merged, all
 * else replaced. Links to the file are followed first.
 * @throws Fault invalid_argument naming the file
 * Source: reference §4.2.
 */
export async function readTomlFile(path: string): Promise<TomlTable> {
  const real = await realpath(path).catch(unreadable(path));
  let table = parseTable(await readFile(real, "utf8").catch(unreadable(path)), path);
  const dir = join(dirname(real), "config.d");
  for (const name of await dropIns(dir)) {
    const at = join(dir, name);
    table = merged(table, parseTable(await readFile(at, "utf8").catch(unreadable(at)), at));
  }
  return table;
}

function unreadable(path: string): (cause: unknown) => never {
  return (cause) => {
    const message = `runtime option ConfigPath = "${path}" cannot be read; correct it in containerd's configuration`;
    throw new Fault("invalid_argument", message, {}, { cause });
  };
}

async function dropIns(dir: string): Promise<string[]> {
  try {
    const entries = await readdir(dir, { withFileTypes: true });
    return entries
      .filter((e) => !e.isDirectory())
      .map((e) => e.name)
      .sort();
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return [];
    throw e;
  }
}

function merged(base: TomlTable, over: TomlTable): TomlTable {
  const result: TomlTable = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const before = result[key];
    result[key] = isTable(before) && isTable(value) ? merged(before, value) : value;
  }
  return result;
}

export function isTable(value: unknown): value is TomlTable {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

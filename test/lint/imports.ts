import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";

/** One `import`, `export … from` or `import()` of a module. */
export interface Import {
  readonly specifier: string;
  /** Path from the repository's root when the specifier is relative, else undefined. */
  readonly target: string | undefined;
  readonly line: number;
}

export interface SourceFile {
  /** From the repository's root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  readonly lines: number;
  readonly imports: readonly Import[];
}

const STATEMENT = /^[ \t]*(?:import|export)\b(?:[^"'`;()]*?\bfrom)?\s*["']([^"']+)["']/gm;
const DYNAMIC = /\bimport\(\s*["']([^"']+)["']/g;

/** Finds the modules that a TypeScript source imports; type-only imports count, since they tie two files just as well. */
export function scanImports(path: string, text: string): readonly Import[] {
  const code = blankComments(text);
  return [...code.matchAll(STATEMENT), ...code.matchAll(DYNAMIC)].map((found) => {
    const specifier = found[1] ?? "";
    const relative = specifier.startsWith(".");
    return {
      specifier,
      target: relative ? posix.normalize(posix.join(posix.dirname(path), specifier)) : undefined,
      line: code.slice(0, found.index).split("\n").length,
    };
  });
}

/** Replaces comments by spaces, so that an example in a doc comment is no import. Strings are kept whole. */
function blankComments(text: string): string {
  const token = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g;
  return text.replace(token, (found) => (found.startsWith("/") ? found.replace(/[^\n]/g, " ") : found));
}

/** Reads every TypeScript file below the given folders. */
export function readSources(root: string, folders: readonly string[], skip: (path: string) => boolean): SourceFile[] {
  const files: SourceFile[] = [];
  for (const folder of folders) {
    if (!existsSync(join(root, folder))) continue;
    for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
      const absolute = join(entry.parentPath, entry.name);
      const path = absolute.slice(root.length + 1).replaceAll("\\", "/");
      if (!entry.isFile() || !path.endsWith(".ts") || skip(path)) continue;
      const text = readFileSync(absolute, "utf8");
      files.push(sourceFile(path, text));
    }
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

export function sourceFile(path: string, text: string): SourceFile {
  const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
  return { path, text, lines, imports: scanImports(path, text) };
}

/** Import cycles, each once, as the list of its files. */
export function findCycles(files: readonly SourceFile[]): readonly (readonly string[])[] {
  const edges = new Map(files.map((f) => [f.path, f.imports.flatMap((i) => i.target ?? [])]));
  const cycles: string[][] = [];
  const done = new Set<string>();
  const stack: string[] = [];
  const visit = (path: string): void => {
    const at = stack.indexOf(path);
    if (at >= 0) {
      cycles.push(stack.slice(at));
      return;
    }
    if (done.has(path)) return;
    stack.push(path);
    for (const next of edges.get(path) ?? []) visit(next);
    stack.pop();
    done.add(path);
  };
  for (const path of edges.keys()) visit(path);
  return cycles;
}

/** Root of the repository: the nearest folder upwards that has a package.json. */
export function repositoryRoot(from: string): string {
  let folder = from;
  while (!existsSync(join(folder, "package.json"))) {
    if (dirname(folder) === folder) throw new Error(`no package.json above ${from}`);
    folder = dirname(folder);
  }
  return folder;
}

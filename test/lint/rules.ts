import { posix } from "node:path";
import { findCycles, type Import, type SourceFile } from "./imports.ts";

/** A breach of a rule: `where` is `path:line`. */
export interface Problem {
  readonly where: string;
  readonly problem: string;
}

const FLOOR = ["src/base", "src/ttrpc", "src/grpc", "src/gen"];
const CONTRACTS = [
  "src/provider",
  "src/userdata",
  "src/guestwire",
  "src/identity",
  "src/podnetwork",
  "src/attestation",
];

/**
 * What each part of the tree may import besides itself. A longer prefix wins; a file that no line covers is refused,
 * so a new top-level folder starts with a decision. The reasons are in the design: folders follow where code runs.
 */
const DIRECTIONS: readonly (readonly [string, readonly string[]])[] = [
  ["src/base", []],
  ["src/gen", []],
  ["src/ttrpc", ["src/base", "src/gen"]],
  ["src/grpc", ["src/base", "src/gen"]],
  ["src/provider", ["src/base"]],
  ["src/userdata", ["src/base"]],
  ["src/guestwire", []],
  ["src/identity", ["src/base"]],
  ["src/guestwire", ["src/base"]],
  ["src/podnetwork", ["src/base", "src/gen"]],
  ["src/attestation", ["src/base", "src/gen"]],
  ["src/vmm", ["src/base"]],
  ["src/podvmimage", ["src/base"]],
  ["src/relay", ["src/guestwire", "src/ttrpc", "src/gen", "src/base"]],
  ["src/shim", ["src/node", "src/relay", ...CONTRACTS, ...FLOOR]],
  ["src/shim/hypervisor", ["src/shim", "src/node", "src/relay", "src/vmm", ...CONTRACTS, ...FLOOR]],
  ["src/node", ["src/shim", "src/relay", ...CONTRACTS, ...FLOOR]],
  ["src/adaptor", [...CONTRACTS, ...FLOOR]],
  ["src/guest", [...CONTRACTS, ...FLOOR]],
  ["src/cmd", ["src", "providers"]],
  ["providers", ["src/provider", "src/base"]],
  ["providers/local", ["src/provider", "src/base", "src/vmm"]],
  ["deploy", ["src/base"]],
  ["test", ["src", "providers", "deploy"]],
];

/** Libraries that only the named parts may import; `test` may import any. */
const JAILS: readonly (readonly [RegExp, readonly string[]])[] = [
  [/^(fastify|@fastify\/.*)$/, ["src/adaptor/api"]],
  [/^@grpc\//, ["src/grpc", "src/adaptor/api", "src/shim/hypervisor"]],
  [/^(bullmq|ioredis)$/, ["src/adaptor/operation", "src/adaptor/store"]],
  [/^node:sqlite$/, ["src/adaptor/store"]],
  [/^(@peculiar\/.*|reflect-metadata)$/, ["src/identity"]],
  [/^@kubernetes\//, ["src/adaptor/kube"]],
  [/^commander$/, ["src/cmd"]],
  [/^(@aws-sdk|@smithy|@azure|@google-cloud|@alicloud|@ibm-cloud)\/|^(googleapis|google-auth-library)$/, ["providers"]],
];

/** Names that say nothing about what is inside. */
const GRAB_BAG = /^(utils?|helpers?|common|misc|shared|lib|stuff|tools)$/;
const SIZE_LIMIT = 400;
const TEST_SIZE_LIMIT = 600;

/** Checks the whole tree. Generated code must be left out by the caller, except as a target of imports. */
export function findProblems(files: readonly SourceFile[]): readonly Problem[] {
  const indexed = new Set(files.filter((f) => posix.basename(f.path) === "index.ts").map((f) => posix.dirname(f.path)));
  return [
    ...files.flatMap((file) => [
      ...fileProblems(file),
      ...file.imports.flatMap((i) =>
        importProblems(file, i, indexed).map((problem) => ({ where: `${file.path}:${i.line}`, problem })),
      ),
    ]),
    ...findCycles(files).map((cycle) => ({
      where: `${cycle[0]}:1`,
      problem: `import cycle: ${[...cycle, cycle[0]].join(" -> ")}`,
    })),
  ];
}

function fileProblems(file: SourceFile): Problem[] {
  const problems: Problem[] = [];
  const limit = isTest(file.path) ? TEST_SIZE_LIMIT : SIZE_LIMIT;
  if (file.lines > limit) {
    problems.push({
      where: `${file.path}:${limit}`,
      problem: `${file.lines} lines, at most ${limit}: make two files of it`,
    });
  }
  const bag = file.path.split("/").find((part) => GRAB_BAG.test(part.split(".")[0] ?? ""));
  if (bag !== undefined)
    problems.push({ where: `${file.path}:1`, problem: `"${bag}" is a grab-bag name: say what is in it` });
  if (file.path.startsWith("src/") && !isTest(file.path) && !file.path.startsWith("src/cmd/")) {
    // `...process.env` only passes the environment on to a program.
    const at = file.text
      .split("\n")
      .findIndex((line) => /(?<!\.\.\.)\bprocess\.env\b/.test(line.replace(/\/\/.*|^\s*\*.*/, "")));
    if (at >= 0)
      problems.push({
        where: `${file.path}:${at + 1}`,
        problem: "process.env is read in src/cmd only: pass the value in",
      });
  }
  return problems;
}

function importProblems(file: SourceFile, found: Import, indexed: ReadonlySet<string>): string[] {
  const from = file.path;
  if (found.target === undefined) {
    const jail = JAILS.find(([library]) => library.test(found.specifier));
    const free = jail === undefined || within(from, "test") || jail[1].some((place) => within(from, place));
    return free ? [] : [`${found.specifier} may be imported in ${jail[1].join(", ")} only`];
  }
  const to = found.target;
  const problems: string[] = [];
  const part = partOf(from);
  if (part === undefined) problems.push(`no rule covers ${from}: add its folder to test/lint/rules.ts`);
  else if (!mayImport(from, part, to)) problems.push(`${part[0]} may not import ${to}`);
  if (to === "providers/registry.ts" && !within(from, "src/cmd") && !within(from, "test")) {
    problems.push("only src/cmd may import providers/registry.ts");
  }
  const folder = posix.dirname(to);
  const outside = !within(from, folder) && !within(from, "test");
  if (outside && indexed.has(folder) && posix.basename(to) !== "index.ts") {
    problems.push(`${to} is inside a folder with an index.ts: import ${folder}/index.ts`);
  }
  if (!/\.(ts|js|mjs|json)$/.test(to)) problems.push(`"${found.specifier}" lacks its .ts suffix`);
  return problems;
}

function mayImport(from: string, part: readonly [string, readonly string[]], to: string): boolean {
  if (part[1].some((allowed) => within(to, allowed))) return true;
  const own = ownRoot(from, part[0]);
  if (within(to, own)) return true;
  // A test may set its part up with the contracts, the floor and the test kit.
  return isTest(from) && ["test", ...CONTRACTS, ...FLOOR].some((allowed) => within(to, allowed));
}

/** Inside of what a file may import freely: its part, and for a provider only its own folder. */
function ownRoot(from: string, part: string): string {
  if (!within(from, "providers")) return part;
  const folder = from.split("/").slice(0, 2).join("/");
  return folder === "providers/registry.ts" ? "providers" : folder;
}

function partOf(path: string): readonly [string, readonly string[]] | undefined {
  const covering = DIRECTIONS.filter(([prefix]) => within(path, prefix));
  return covering.sort((a, b) => b[0].length - a[0].length)[0];
}

function within(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}

function isTest(path: string): boolean {
  return path.endsWith(".test.ts") || within(path, "test");
}

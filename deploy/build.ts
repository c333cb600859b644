// Makes dist/, laid out like an installation prefix: bin/ (launcher and command), lib/kata-remote/ (bundles).
// Usage: node deploy/build.ts [--out DIR] [--with-node]
//   --with-node puts a copy of Node beside the bundles, for a prefix that is moved away from this repository.
import { existsSync, rmSync } from "node:fs";
import { chmod, copyFile, cp, mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type BuildOptions, build } from "esbuild";

const root = join(import.meta.dirname, "..");
const { values: options } = parseArgs({ options: { out: { type: "string" }, "with-node": { type: "boolean" } } });
const finished = resolve(options.out ?? join(root, "dist"));
// Made beside it and moved into place when complete: what runs from dist/ never sees half of a build.
const prefix = `${finished}.${process.pid}`;
const library = join(prefix, "lib", "kata-remote");

/** CommonJS dependencies inside an ES module bundle ask for `require`. */
const BANNER = [
  'import { createRequire as kataRemoteCreateRequire } from "node:module";',
  "const require = kataRemoteCreateRequire(import.meta.url);",
].join("\n");

/** Native code cannot be bundled: it is copied to lib/kata-remote/node_modules, when it is installed. */
const NATIVE = ["koffi"];
const NATIVE_PARTS = ["@koromix"];

const shared: BuildOptions = {
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  target: "node24",
  // Node 24 has `using`. esbuild would lower it, and in a loop the error of one turn would be thrown in the next.
  supported: { using: true },
  format: "esm",
  outdir: library,
  outExtension: { ".js": ".mjs" },
  // ES modules where a package has them: of a CommonJS one, a dynamic import would see nothing but `default`.
  mainFields: ["module", "main"],
  banner: { js: BANNER },
  external: NATIVE,
  legalComments: "linked",
  logLevel: "warning",
};

process.on("exit", () => rmSync(prefix, { recursive: true, force: true })); // after a failure; else it has moved
await mkdir(join(prefix, "bin"), { recursive: true });

// The command: split, so that a cloud's SDK is read only when its provider is chosen.
await build({
  ...shared,
  entryPoints: { "kata-remote": "src/cmd/kata-remote.ts" },
  splitting: true,
  chunkNames: "chunks/[name]-[hash]",
});
// The guest: a small file, read by a slow machine, and chunks that a boot does without. Names stay, for stack traces.
await build({
  ...shared,
  entryPoints: { guest: "src/cmd/guest.ts" },
  outdir: join(library, "guest"),
  splitting: true,
  chunkNames: "chunks/[name]-[hash]",
  minifyWhitespace: true,
  minifySyntax: true,
});

// The relay: one file too, so that the process that must not die loads and keeps nothing that it does not need.
await build({
  ...shared,
  entryPoints: { relay: "src/cmd/relay.ts" },
  minifyWhitespace: true,
  minifySyntax: true,
});

for (const name of await readdir(join(root, "deploy", "bin"))) {
  await copyFile(join(root, "deploy", "bin", name), join(prefix, "bin", name));
  await chmod(join(prefix, "bin", name), 0o755);
}
for (const name of [...NATIVE, ...NATIVE_PARTS]) {
  const from = join(root, "node_modules", name);
  // Optional and perhaps not installed: the code that wants it says so when it is needed.
  if (existsSync(from)) await cp(from, join(library, "node_modules", name), { recursive: true, dereference: true });
}
if (options["with-node"]) await copyFile(process.execPath, join(library, "node"));

await rm(finished, { recursive: true, force: true });
await rename(prefix, finished);
console.log(`built ${finished}: ${((await sizeOf(finished)) / 1e6).toFixed(1)} MB`);

async function sizeOf(path: string): Promise<number> {
  const info = await stat(path);
  if (!info.isDirectory()) return info.size;
  const sizes = await Promise.all((await readdir(path)).map((name) => sizeOf(join(path, name))));
  return sizes.reduce((a, b) => a + b, 0);
}

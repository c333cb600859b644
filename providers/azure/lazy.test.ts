import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { it } from "node:test";
import { promisify } from "node:util";

/** Prints the packages that a piece of code has loaded. */
const RECORD = `
import { registerHooks } from "node:module";
const loaded = new Set();
registerHooks({
  resolve(specifier, context, next) {
    const found = next(specifier, context);
    const name = /node_modules\\/((?:@[^/]+\\/)?[^/]+)\\//.exec(found.url)?.[1];
    if (name !== undefined) loaded.add(name);
    return found;
  },
});
process.on("exit", () => console.log(JSON.stringify([...loaded])));
`;

async function loadedBy(code: string): Promise<readonly string[]> {
  const cwd = join(import.meta.dirname, "..", "..");
  const args = ["--input-type=module", "--eval", `${RECORD}${code}`];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd });
  return JSON.parse(stdout) as string[];
}

it("neither another provider nor the reading of azure's configuration loads Azure's SDK", async () => {
  const packages = await loadedBy(`
    const { loadProvider } = await import("./providers/registry.ts");
    for (const name of ["local", "azure"]) await loadProvider(name);
  `);
  assert.ok(packages.includes("typebox"));
  assert.deepEqual(
    packages.filter((p) => /azure|msal/.test(p)),
    [],
  );
});

it("opening it does", async () => {
  const packages = await loadedBy(`
    const { openSdk } = await import("./providers/azure/azure-sdk.ts");
    await openSdk({ subscriptionId: "s", credential: "chain", cloud: "public", requestTimeoutMs: 1000 });
  `);
  for (const name of ["@azure/arm-compute", "@azure/arm-network", "@azure/identity"])
    assert.ok(packages.includes(name), name);
  assert.ok(!packages.includes("@azure/storage-blob"), "that is for images only");
});

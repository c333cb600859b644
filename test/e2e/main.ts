// Runs the end-to-end tests: `npm run test:e2e -- [--provider local|aws|azure] [FILE...]`.
// `--list` only prints their names. local: all of them. A cloud: those that go for any provider and the cloud's own, against an endpoint with its protocol.
import { spawn } from "node:child_process";
import { existsSync, globSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { PROVIDERS, type ProviderName } from "./harness/test-cloud.ts";

const here = import.meta.dirname;
/** What a user sees of these must not depend on where the VM runs. */
const FOR_ANY_PROVIDER = ["run.test.ts", "cri.test.ts"];

const { values, positionals } = parseArgs({
  options: { provider: { type: "string" }, list: { type: "boolean" } },
  allowPositionals: true,
});
const provider = PROVIDERS.find((p) => p === (values.provider ?? "local"));
if (provider === undefined) {
  console.error(`--provider ${values.provider} is not one of ${PROVIDERS.join(", ")}`);
  process.exit(2);
}
const files = positionals.length > 0 ? positionals : filesOf(provider);
if (values.list) {
  console.log(files.join("\n"));
  process.exit(0);
}
const args = ["--test", "--test-concurrency=1", "--test-force-exit", "--test-timeout=900000", "--test-reporter=spec"];
const child = spawn(process.execPath, [...args, ...files], {
  stdio: "inherit",
  env: { ...process.env, KATA_REMOTE_TEST_PROVIDER: provider },
});
for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => child.kill(name));
child.on("exit", (code) => process.exit(code ?? 1));

function filesOf(name: ProviderName): string[] {
  // docker-compose.yml's services choose their provider themselves.
  if (name === "local")
    return globSync(["*.test.ts", "clouds/compose.test.ts"], { cwd: here }).map((file) => join(here, file));
  const own = join(here, "clouds", `${name}.test.ts`);
  return [...FOR_ANY_PROVIDER.map((file) => join(here, file)), ...(existsSync(own) ? [own] : [])];
}

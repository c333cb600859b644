// Usage: node deploy/quickstart/write-config.ts DIR CACHE   writes DIR/node.toml and DIR/adaptor.toml for one machine.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "smol-toml";

const [folder, cacheDir] = process.argv.slice(2);
if (folder === undefined || cacheDir === undefined) throw new Error("a folder and a cache are needed");
const runDir = join(folder, "run");
const state = (name: string): string => join(folder, "state", name);
writeFileSync(join(folder, "node.toml"), stringify({ runDir, stateDir: state("node") }));
writeFileSync(
  join(folder, "adaptor.toml"),
  stringify({
    stateDir: state("adaptor"),
    grpc: { socketPath: join(runDir, "adaptor.sock") },
    rest: { socketPath: join(runDir, "rest.sock") },
    providers: { local: { stateDir: state("local"), imageDir: join(cacheDir, "podvm"), cacheDir } },
  }),
);

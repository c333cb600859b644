import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { AdaptorConfig, createAdaptor } from "../../src/adaptor/index.ts";
import { background } from "../../src/base/call.ts";
import { parseConfig } from "../../src/base/config.ts";
import { createLogger } from "../../src/base/log.ts";
import { NodeConfig, openHypervisors, startNodeDaemon } from "../../src/node/index.ts";
import { createShim } from "../../src/shim/index.ts";
import { ScriptProvider } from "../fakes/script-provider.ts";

/**
 * Adaptor and node daemon in one process with a program as the cloud (see ScriptProvider), for running stock shims and
 * stock forwarders against: `node test/protocol/stock-world.ts --dir D --program P [--socket S] [--config '{…}'] [--level info]`.
 * `--config` is merged into the node's configuration. Prints one line when it serves, ends with SIGTERM.
 */
const { values } = parseArgs({
  options: {
    dir: { type: "string" },
    program: { type: "string" },
    socket: { type: "string" },
    config: { type: "string", default: "{}" },
    level: { type: "string", default: "debug" },
  },
});
const dir = resolve(values.dir ?? ".");
const program = resolve(values.program ?? "");
const { level } = values;
const given = JSON.parse(values.config) as { readonly stock?: object };
const adaptorConfig = parseConfig(
  AdaptorConfig,
  {
    ...{ stateDir: join(dir, "adaptor"), provider: "script", rest: { port: 0 } },
    grpc: { socketPath: join(dir, "run", "adaptor.sock") },
  },
  "stock-world",
);
const nodeConfig = parseConfig(
  NodeConfig,
  {
    ...{ runDir: join(dir, "run"), stateDir: join(dir, "node") },
    ...given,
    stock: {
      socket: values.socket ?? join(dir, "hypervisor.sock"),
      podsDir: join(dir, "pods"),
      ...given.stock,
    },
  },
  "stock-world",
);
const provider = new ScriptProvider({ dir: join(dir, "cloud"), program });
const adaptor = createAdaptor(adaptorConfig, { provider, log: createLogger("adaptor", { level }) });
await adaptor.start();
const log = createLogger("node", { level });
// As `kata-remote stock` has it.
const open: typeof openHypervisors = (c, d) => openHypervisors(c, { ...d, adaptor: adaptor.nodeDoor });
const deps = { log, createShim, openHypervisors: open, supervised: true, ownProcess: false, doors: [] };
const daemon = await startNodeDaemon(nodeConfig, deps, background());
process.stdout.write(`serving ${nodeConfig.stock?.socket} rest ${adaptor.restAddress}\n`);
await new Promise<void>((end) => {
  process.once("SIGTERM", () => end());
  process.once("SIGINT", () => end());
});
await daemon.close("stock-world was told to end");
await adaptor.close();
setTimeout(() => process.exit(), 2000).unref();

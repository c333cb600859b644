import { createServer, type Server } from "node:http";
import { connect } from "node:net";
import { hostname } from "node:os";
import type { Call } from "../base/call.ts";
import { createLogger } from "../base/log.ts";
import { clusterOf, readStockSettings, type StockSettings } from "./stock-settings.ts";

/** Where the stock DaemonSet has a directory of the host's. */
const DIR = "/run/peerpod/kata-remote";
/** Source: wire contract §3.15. */
const PROBE_PORT = 8000;

/**
 * `kata-remote stock <provider> [flags]`: node daemon and adaptor in one process, set up by what an existing DaemonSet
 * gives the stock adaptor. Configuration files may say more; the environment wins.
 */
export async function runStock(argv: readonly string[], call: Call): Promise<void> {
  const settings = readSettings(argv);
  const { runUp } = await import("./up.ts");
  const node = { under: { runDir: DIR, stateDir: `${DIR}/node` }, over: settings.node };
  const under = { stateDir: `${DIR}/adaptor`, cluster: clusterOf(hostname()) };
  const adaptor = { under, over: settings.adaptor };
  const { readNodeConfig } = await import("./node.ts");
  const { stock } = await readNodeConfig(undefined, node);
  const probe =
    process.env.NODE_NAME === undefined
      ? undefined
      : openProbe(Number(process.env.PROBE_PORT) || PROBE_PORT, stock?.socket ?? "");
  try {
    await runUp({ doors: [], node, adaptor }, call);
  } finally {
    probe?.close();
  }
}

/** What flags and environment say; warnings go to the log, and what a cloud's library is to find into the environment. @throws Fault invalid_argument */
export function readSettings(argv: readonly string[]): StockSettings {
  const settings = readStockSettings(argv, process.env);
  const log = createLogger("stock");
  for (const warning of settings.warnings) log.warn({ warning }, "setting of the stock adaptor");
  Object.assign(process.env, settings.env);
  return settings;
}

/** `GET /startup` for the DaemonSet's startupProbe: 200 as soon as the hypervisor socket takes connections. */
function openProbe(port: number, socketPath: string): Server {
  const server = createServer((request, response) => {
    if (request.url !== "/startup") {
      response.writeHead(404).end();
      return;
    }
    const socket = connect(socketPath);
    socket.once("connect", () => {
      socket.destroy();
      response.writeHead(200).end("ok\n");
    });
    socket.once("error", () => response.writeHead(500).end("the hypervisor socket takes no connection yet\n"));
  });
  server.on("error", (err) => createLogger("stock").error({ err, port }, "the probe's port cannot be had"));
  server.listen(port, "127.0.0.1");
  server.unref();
  return server;
}

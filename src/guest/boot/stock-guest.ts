import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import type { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import type { ServiceImplementation } from "../../ttrpc/index.ts";
import { StockForwarder, type StockTls } from "../forwarder/index.ts";
import { stockPlan } from "../net/index.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { type Apf, parseStockSeed } from "./stock-seed.ts";

export interface StockGuestDeps {
  readonly userData: string;
  readonly agent: ServiceImplementation<typeof AgentServiceDefinition>;
  /** Makes the pod's network from a plan in JSON. */
  readonly setPodNetwork: (planJson: string) => Promise<void>;
  readonly log: GuestLog;
  /** Where the other files of the document go. */
  readonly directory?: string;
  /** The operator's certificates, which are part of the image in the adaptor's manual mode. */
  readonly certificates?: string;
}

/**
 * The guest under the stock adaptor: user-data says everything, so the pod has its network before anybody can dial.
 * @throws Fault naming what in user-data cannot be used
 */
export async function stockGuest(deps: StockGuestDeps): Promise<StockForwarder> {
  const { directory = "/run/peerpod", certificates = "/etc/certificates" } = deps;
  const { apf, files } = parseStockSeed(deps.userData);
  const forwarder = new StockForwarder({ tls: tlsOf(apf, certificates), agent: deps.agent, log: deps.log });
  const plan = stockPlan(apf["pod-network"]);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  for (const [name, content] of files) writeFileSync(`${directory}/${name}`, content, { mode: 0o600 });
  await deps.setPodNetwork(JSON.stringify(plan));
  deps.log.info("configured by the stock adaptor", { pod: `${apf["pod-namespace"]}/${apf["pod-name"]}` });
  return forwarder;
}

/** Without a key in the document the adaptor is in its manual mode: key, certificate and client CA are in the image. */
function tlsOf(apf: Apf, certificates: string): StockTls {
  const fromImage = (file: string): string => {
    const path = `${certificates}/${file}`;
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  };
  return {
    key: apf["tls-server-key"] || fromImage("tls.key"),
    cert: apf["tls-server-cert"] || fromImage("tls.crt"),
    clientCa: apf["tls-client-ca"] || fromImage("ca.crt"),
    minVersion: apf["tls-min-version"],
    cipherSuites: apf["tls-cipher-suites"] ?? undefined,
  };
}

import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { parse as parseToml } from "smol-toml";
import { loadProvider } from "../../providers/registry.ts";
import {
  type Adaptor,
  AdaptorConfig,
  type AdaptorDeps,
  createAdaptor,
  KubeEvents,
  KubeReader,
  pullSecretLookup,
} from "../adaptor/index.ts";
import type { Call } from "../base/call.ts";
import { parseConfig } from "../base/config.ts";
import { Fault } from "../base/fault.ts";
import { readIfThere } from "../base/files.ts";
import { createLogger, type Logger } from "../base/log.ts";
import { type Layers, layered } from "../base/overlay.ts";
import type { Provider } from "../provider/index.ts";

/** After the adaptor has closed, whatever still keeps the process alive is cut off, ms. */
const EXIT_MS = 3_000;
const DEFAULT_CONFIG_PATH = "/etc/kata-remote/adaptor.toml";

export interface AdaptorOptions {
  /** TOML. Without it KATA_REMOTE_ADAPTOR_CONFIG, then the default path is read if there is a file. */
  readonly configPath?: string;
}

/** @throws Fault not_found for a file that was named and is not there; invalid_argument naming file and key */
export async function loadAdaptorConfig(configPath?: string, layers: Layers = {}): Promise<AdaptorConfig> {
  const named = configPath ?? process.env.KATA_REMOTE_ADAPTOR_CONFIG;
  const path = named ?? DEFAULT_CONFIG_PATH;
  const text = await readIfThere(path);
  if (text === undefined && named !== undefined) throw new Fault("not_found", `${path} is not there`);
  let input: unknown;
  try {
    input = parseToml(text ?? "");
  } catch (cause) {
    throw new Fault("invalid_argument", `${path} is not valid TOML`, {}, { cause });
  }
  return parseConfig(AdaptorConfig, layered(withRedisUrl(input, process.env.REDIS_URL), layers), path);
}

/** REDIS_URL stands in for a store that the file leaves open: it says nothing of it, or redis without saying where. */
function withRedisUrl(input: unknown, url: string | undefined): unknown {
  if (url === undefined || url === "" || typeof input !== "object" || input === null) return input;
  const store = (input as { store?: unknown }).store ?? { kind: "redis" };
  if (typeof store !== "object" || store === null || (store as { kind?: unknown }).kind !== "redis") return input;
  const placed = ["url", "sentinels", "cluster"].some((key) => key in store);
  return placed ? input : { ...input, store: { ...store, url } };
}

/** The provider that the configuration chooses, with its own part checked. @throws Fault invalid_argument */
export async function openProvider(config: AdaptorConfig, log: Logger): Promise<Provider> {
  const plugin = await loadProvider(config.provider);
  const own = parseConfig(plugin.configSchema, config.providers[config.provider] ?? {}, `providers.${config.provider}`);
  return plugin.create(own, { log, now: () => new Date() });
}

/** Starts adaptor and provider in this process; closing it closes both. Running VMs are not touched by either. */
export async function openAdaptor(
  config: AdaptorConfig,
  log: Logger,
): Promise<Pick<Adaptor, "close" | "restAddress" | "nodeDoor">> {
  const provider = await openProvider(config, log);
  const kube = inCluster();
  const events =
    kube && config.kubernetes.events ? new KubeEvents({ cluster: kube, podName: podName(), log }) : undefined;
  const inKube: Partial<AdaptorDeps> = {
    ...(kube === undefined ? {} : { pullSecrets: pullSecretLookup({ reader: kube, log }) }),
    ...(events === undefined ? {} : { onEvent: (event, pod) => events.post(event, pod) }),
  };
  const adaptor = createAdaptor(config, { provider, log, ...inKube });
  try {
    await adaptor.start();
  } catch (e) {
    await provider.close();
    throw e;
  }
  return {
    restAddress: adaptor.restAddress,
    nodeDoor: adaptor.nodeDoor,
    async close() {
      await adaptor.close();
      await events?.[Symbol.asyncDispose]();
      kube?.close();
      await provider.close();
    },
  };
}

/** This process' pod. Source: kubernetes.io, "Pod's hostname and subdomain fields"; POD_NAME where the manifest says it. */
function podName(): string {
  return process.env.POD_NAME ?? hostname();
}

/** The cluster whose pod this process is. Source: kubernetes.io "Accessing the API from a Pod". */
function inCluster(): KubeReader | undefined {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = process.env;
  const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount";
  if (host === undefined || host === "" || !existsSync(`${accountDir}/token`)) return undefined;
  return new KubeReader({ host, port: Number(port) || 443, accountDir });
}

/** `kata-remote adaptor`: serves until the call ends. */
export async function runAdaptor(options: AdaptorOptions, call: Call): Promise<void> {
  process.umask(0o077);
  const config = await loadAdaptorConfig(options.configPath);
  const log = createLogger("adaptor", { level: config.logLevel });
  const adaptor = await openAdaptor(config, log);
  if (!call.signal.aborted) {
    await new Promise<void>((resolve) => call.signal.addEventListener("abort", () => resolve(), { once: true }));
  }
  await adaptor.close();
  log.info("adaptor ended; its VMs live on");
  // A library that still waits for a Redis which is away must not keep the process.
  setTimeout(() => process.exit(), EXIT_MS).unref();
}

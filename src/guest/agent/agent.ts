import type { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import type { ServiceImplementation } from "../../ttrpc/index.ts";
import type { GuestImages } from "../images/index.ts";
import type { Children } from "../system/children.ts";
import type { GuestLog } from "../system/guest-log.ts";
import { agentService } from "./agent-service.ts";
import { CloudVolumes } from "./cloud-volumes.ts";
import { Containers } from "./containers.ts";
import { Crun } from "./crun.ts";
import { OomWatch } from "./oom-watch.ts";
import type { AgentPaths } from "./paths.ts";
import { Sandbox } from "./sandbox.ts";
import { Storages } from "./storages.ts";

export interface AgentOptions {
  readonly paths: AgentPaths;
  readonly children: Children;
  /** Ids of the cloud's volumes that this VM has, in the order in which they were attached. */
  readonly volumes: () => readonly string[];
  /** Called when DestroySandbox has removed everything. */
  readonly end: () => void;
  readonly log: GuestLog;
}

export interface Agent {
  readonly service: ServiceImplementation<typeof AgentServiceDefinition>;
  /** What pulls images; its code is read with the first that asks for it. */
  readonly images: () => Promise<GuestImages>;
}

/** Where the stock adaptor's user-data puts the pod's pull secrets. Source: wire contract §3.5 */
const STOCK_AUTH_FILE = "/run/peerpod/auth.json";
/** Registries and CAs for all pods of an image; under the stock adaptor nobody else says them. */
const IMAGE_SETTINGS_FILE = "/etc/kata-remote/images.json";

/** The reference agent, in this process. It starts nothing before a request asks for it. */
export function createAgent(options: AgentOptions): Agent {
  const { paths, children, end, log } = options;
  let opened: Promise<GuestImages> | undefined;
  const images = (): Promise<GuestImages> => {
    opened ??= import("../images/index.ts").then(
      (module) =>
        new module.GuestImages({ disk: paths.disk, log, authFile: STOCK_AUTH_FILE, settingsFile: IMAGE_SETTINGS_FILE }),
    );
    return opened;
  };
  const storages = new Storages(paths, images, new CloudVolumes({ children, volumes: options.volumes }));
  const sandbox = new Sandbox({ paths, storages });
  const oom = new OomWatch();
  const crun = new Crun({ children, diskPath: paths.disk });
  const containers = new Containers({ paths, crun, children, sandbox, storages, oom });
  return { service: agentService({ paths, sandbox, containers, storages, oom, end }), images };
}

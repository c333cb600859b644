import type { AgentServiceDefinition } from "../../gen/agent/agent.ts";
import type { ServiceImplementation } from "../../ttrpc/index.ts";
import type { Children } from "../system/children.ts";
import { agentService } from "./agent-service.ts";
import { Containers } from "./containers.ts";
import { Crun } from "./crun.ts";
import { OomWatch } from "./oom-watch.ts";
import type { AgentPaths } from "./paths.ts";
import { Sandbox } from "./sandbox.ts";
import { Storages } from "./storages.ts";

export interface AgentOptions {
  readonly paths: AgentPaths;
  readonly children: Children;
  /** Called when DestroySandbox has removed everything. */
  readonly end: () => void;
}

export interface Agent {
  readonly service: ServiceImplementation<typeof AgentServiceDefinition>;
}

/** The reference agent, in this process. It starts nothing before a request asks for it. */
export function createAgent(options: AgentOptions): Agent {
  const { paths, children, end } = options;
  const storages = new Storages(paths);
  const sandbox = new Sandbox({ paths, storages });
  const oom = new OomWatch();
  const crun = new Crun({ children, diskPath: paths.disk });
  const containers = new Containers({ paths, crun, children, sandbox, storages, oom });
  return { service: agentService({ paths, sandbox, containers, storages, oom, end }) };
}

import { Fault } from "../../base/fault.ts";

/** Where the agent keeps things. Source of the /run paths: the kata-agent protocol's requests name them. */
export interface AgentPaths {
  /** Bundles, the sandbox's shared files, volumes: tmpfs. */
  readonly run: string;
  /** Root filesystem trees and what containers write: the guest's disk. */
  readonly disk: string;
}

export const AGENT_PATHS: AgentPaths = { run: "/run/kata-containers", disk: "/var/lib/kata-remote" };

export const POD_NETWORK_NAMESPACE = "/run/netns/podns";

const TREE_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$/;

/** Directory of a root filesystem tree. @throws Fault invalid_argument */
export function treePath(paths: AgentPaths, treeId: string): string {
  if (!TREE_ID.test(treeId)) {
    throw new Fault("invalid_argument", `tree id "${treeId}" is not valid: 1 to 200 of a-z A-Z 0-9 _ . - are`);
  }
  return `${paths.disk}/trees/${treeId}`;
}

export { type Agent, type AgentOptions, createAgent } from "./agent.ts";
export { spaceText } from "./exhaustion.ts";
export { AGENT_PATHS, type AgentPaths, POD_NETWORK_NAMESPACE, treePath } from "./paths.ts";

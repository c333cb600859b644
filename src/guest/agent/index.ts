export { type Agent, type AgentOptions, createAgent } from "./agent.ts";
export { copyFile } from "./copy-file.ts";
export { spaceText } from "./exhaustion.ts";
export { copyFiles } from "./packed-files.ts";
export { AGENT_PATHS, type AgentPaths, POD_NETWORK_NAMESPACE, treePath } from "./paths.ts";

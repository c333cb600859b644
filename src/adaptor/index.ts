export { type Adaptor, createAdaptor } from "./adaptor.ts";
export { openApi } from "./api/index.ts";
export { AdaptorConfig } from "./config.ts";
export { type AdaptorDeps, type Engine, openEngine } from "./engine.ts";
export { KubeEvents, KubeReader, pullSecretLookup } from "./kube/index.ts";
export { checkStorage } from "./storage.ts";

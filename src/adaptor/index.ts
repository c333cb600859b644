export { type Adaptor, type AdaptorDeps, createAdaptor } from "./adaptor.ts";
export { AdaptorConfig } from "./config.ts";
export { checkStorage } from "./storage.ts";

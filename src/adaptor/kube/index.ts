export { KubeEvents } from "./kube-events.ts";
export { type KubeAddress, KubeReader } from "./kube-reader.ts";
export { pullSecretLookup } from "./pull-secrets.ts";

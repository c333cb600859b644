export { type KubeAddress, KubeReader } from "./kube-reader.ts";
export { pullSecretLookup } from "./pull-secrets.ts";

/** One setting of the stock adaptor and what becomes of it. */
export interface StockSetting {
  /** Command line flag. */
  readonly flag?: string;
  /** Environment variable. */
  readonly env?: string;
  readonly type: "text" | "int" | "bool" | "duration" | "list" | "map";
  /** `node:` and `adaptor:` are keys of our two configurations, `env:` is a variable that a cloud's own library reads. */
  readonly to?: string;
  /** In place of `to`: what it does here without being a key. Without both it has no meaning, which a warning says. */
  readonly does?: string;
  /** More about `to`; without a meaning why it has none. */
  readonly note?: string;
}

/** Those that every provider has. Source: wire contract §2.2 */
export const COMMON_SETTINGS: readonly StockSetting[] = [
  { flag: "socket", env: "REMOTE_HYPERVISOR_ENDPOINT", type: "text", to: "node:stock.socket" },
  { flag: "pods-dir", env: "PODS_DIR", type: "text", to: "node:stock.podsDir" },
  { flag: "pause-image", env: "PAUSE_IMAGE", type: "text", note: "the stock adaptor does not use it either" },
  { flag: "forwarder-port", env: "FORWARDER_PORT", type: "int", to: "node:stock.forwarderPort" },
  { flag: "ca-cert-file", env: "CACERT_FILE", type: "text", to: "node:stock.tls.caFile" },
  { flag: "cert-file", env: "CERT_FILE", type: "text", to: "node:stock.tls.certificateFile" },
  { flag: "cert-key", env: "CERT_KEY", type: "text", to: "node:stock.tls.keyFile" },
  { flag: "tls-skip-verify", env: "TLS_SKIP_VERIFY", type: "bool", note: "pod VMs are always verified" },
  { flag: "tls-min-version", env: "TLS_MIN_VERSION", type: "text", to: "node:stock.tls.minVersion" },
  { flag: "tls-cipher-suites", env: "TLS_CIPHER_SUITES", type: "list", to: "node:stock.tls.cipherSuites" },
  { flag: "proxy-timeout", env: "PROXY_TIMEOUT", type: "duration", to: "node:stock.connectTimeoutMs" },
  { flag: "tunnel-type", env: "TUNNEL_TYPE", type: "text", to: "node:podNetwork.tunnel" },
  { flag: "vxlan-port", env: "VXLAN_PORT", type: "int", to: "node:podNetwork.port" },
  { flag: "vxlan-min-id", type: "int", to: "node:podNetwork.firstVni" },
  { flag: "initdata", env: "INITDATA", type: "text", to: "node:stock.initdata" },
  {
    ...{ flag: "cloud-config-verify", env: "CLOUD_CONFIG_VERIFY", type: "bool" },
    note: "it is always verified at the start, and by kata-remote check",
  },
  { flag: "peerpods-limit-per-node", env: "PEERPODS_LIMIT_PER_NODE", type: "int", to: "adaptor:limits.sandboxes" },
  { flag: "enable-scratch-space", env: "ENABLE_SCRATCH_SPACE", type: "bool", to: "node:stock.scratchSpace" },
  {
    ...{ flag: "ext-network-via-podvm", env: "EXTERNAL_NETWORK_VIA_PODVM", type: "bool" },
    to: "node:stock.externalNetworkViaVm",
  },
  { flag: "pod-subnet-cidrs", env: "POD_SUBNET_CIDRS", type: "list", to: "node:stock.podSubnets" },
  { flag: "disable-tls", type: "bool", note: "plain connections to pod VMs are not made" },
  { flag: "host-interface", type: "text", to: "node:stock.hostInterface" },
  {
    env: "NODE_NAME",
    type: "text",
    to: "adaptor:cluster",
    note: "one adaptor per node: each one's VMs have a tag of their own",
  },
  { env: "CLOUD_PROVIDER", type: "text", to: "adaptor:provider" },
  { env: "PROBE_PORT", type: "int", does: "/startup is served on it (default 8000) when NODE_NAME is set" },
  { env: "POD_UID", type: "text", note: "node capacity and its owner are not written here" },
  { env: "POD_NAMESPACE", type: "text", note: "nothing of ours lives in a namespace" },
  { env: "RUNTIMECLASS_NAME", type: "text", note: "the probe need not wait for pods: they outlive a restart" },
  { env: "NOTIFY_SOCKET", type: "text", note: "systemd is not told; the unit's Type must be simple" },
  { env: "ENABLE_CLOUD_PROVIDER_EXTERNAL_PLUGIN", type: "bool", note: "providers are folders of this program" },
  { env: "CLOUD_PROVIDER_EXTERNAL_PLUGIN_PATH", type: "text", note: "providers are folders of this program" },
  { env: "CLOUD_PROVIDER_EXTERNAL_PLUGIN_HASH", type: "text", note: "providers are folders of this program" },
];

/** Variables that begin so are meant for the stock adaptor: one that no row has is named in a warning. */
export const STOCK_PREFIXES = new RegExp(
  `^(${[
    "PODVM_|AWS_(SUBNET|SG|LT)|AZURE_|GCP_|IBMCLOUD_|POWERVS_|LIBVIRT_|ALIBABACLOUD_|ALIBABA_CLOUD_|VSWITCH_",
    "TLS_|CACERT_|CERT_(FILE|KEY)|VXLAN_|TUNNEL_|PROXY_TIME|FORWARDER_|REMOTE_HYPERVISOR_|PODS_|POD_SUBNET|INITDATA",
    "PEERPODS_|POOL_|VM_POOL_|SSH_(USER|KP|PUB|PRIV|TIME|HOST_KEY)|EXTERNAL_NETWORK|ENABLE_|CLOUD_(PROV|CONFIG)",
    "DISABLECVM|USE_(PUBLIC|PODVM)|ROOT_VOLUME",
  ].join("|")})`,
);

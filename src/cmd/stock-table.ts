/** Where a setting of the stock adaptor goes: `node:` and `adaptor:` are keys of our two configurations. */
export interface StockSetting {
  /** Command line flag. */
  readonly flag?: string;
  /** Environment variable. */
  readonly env?: string;
  readonly type: "text" | "int" | "bool" | "duration" | "list" | "map";
  /** Absent: it has no meaning here, `note` says why. */
  readonly to?: string;
  readonly note?: string;
}

/** Source: wire contract §2.2, and of the provider §2.3. One row for each setting that is known. */
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
  { env: "PROBE_PORT", type: "int", note: "default 8000; /startup is served on it when NODE_NAME is set" },
  { env: "POD_UID", type: "text", note: "node capacity and its owner are not written here" },
  { env: "POD_NAMESPACE", type: "text", note: "nothing of ours lives in a namespace" },
  { env: "RUNTIMECLASS_NAME", type: "text", note: "the probe need not wait for pods: they outlive a restart" },
  { env: "NOTIFY_SOCKET", type: "text", note: "systemd's; the unit's type is simple" },
  { env: "ENABLE_CLOUD_PROVIDER_EXTERNAL_PLUGIN", type: "bool", note: "providers are folders of this program" },
  { env: "CLOUD_PROVIDER_EXTERNAL_PLUGIN_PATH", type: "text", note: "providers are folders of this program" },
  { env: "CLOUD_PROVIDER_EXTERNAL_PLUGIN_HASH", type: "text", note: "providers are folders of this program" },
];

const SDK = "read by the cloud's own library";

export const PROVIDER_SETTINGS: Readonly<Record<string, readonly StockSetting[]>> = {
  aws: [
    { env: "AWS_ACCESS_KEY_ID", type: "text", note: SDK },
    { env: "AWS_SECRET_ACCESS_KEY", type: "text", note: SDK },
    { env: "AWS_SESSION_TOKEN", type: "text", note: SDK },
    { env: "AWS_ROLE_ARN", type: "text", note: SDK },
    { env: "AWS_WEB_IDENTITY_TOKEN_FILE", type: "text", note: SDK },
    { flag: "aws-region", env: "AWS_REGION", type: "text", to: "adaptor:providers.aws.region" },
    { flag: "instance-type", env: "PODVM_INSTANCE_TYPE", type: "text", to: "adaptor:providers.aws.instanceType" },
    { flag: "instance-types", env: "PODVM_INSTANCE_TYPES", type: "list", to: "adaptor:providers.aws.instanceTypes" },
    { flag: "imageid", env: "PODVM_AMI_ID", type: "text", to: "adaptor:providers.aws.imageId" },
    { flag: "subnetid", env: "AWS_SUBNET_ID", type: "list", to: "adaptor:providers.aws.subnets" },
    { flag: "securitygroupids", env: "AWS_SG_IDS", type: "list", to: "adaptor:providers.aws.securityGroups" },
    { flag: "keyname", env: "SSH_KP_NAME", type: "text", to: "adaptor:providers.aws.keyName" },
    {
      ...{ flag: "use-lt", env: "USE_PODVM_LAUNCHTEMPLATE", type: "bool" },
      note: "providers.aws.launchTemplate is set with it",
    },
    {
      ...{ flag: "aws-lt-name", env: "PODVM_LAUNCHTEMPLATE_NAME", type: "text" },
      to: "adaptor:providers.aws.launchTemplate.name",
      note: "with use-lt only",
    },
    { flag: "use-public-ip", env: "USE_PUBLIC_IP", type: "bool", to: "adaptor:providers.aws.publicIp" },
    {
      flag: "root-volume-size",
      env: "ROOT_VOLUME_SIZE",
      type: "int",
      to: "adaptor:providers.aws.rootDiskGiB",
      note: "0 keeps the image's",
    },
    { flag: "disable-cvm", env: "DISABLECVM", type: "bool", to: "adaptor:providers.aws.tee", note: 'true is "none"' },
    { flag: "tags", env: "TAGS", type: "map", to: "adaptor:providers.aws.tags" },
  ],
};

/** Variables that begin so are meant for the stock adaptor: one that no row has is named in a warning. */
export const STOCK_PREFIXES =
  /^(PODVM_|AWS_(SUBNET|SG|LT)|AZURE_|GCP_|IBMCLOUD_(PROVIDER|CONFIG)|POWERVS_|LIBVIRT_|ALIBABACLOUD_|ALIBABA_CLOUD_|TLS_|VXLAN_|PEERPODS_|POOL_|VM_POOL_|SSH_|EXTERNAL_|ENABLE_|CLOUD_|DISABLE|USE_PUBLIC)/;

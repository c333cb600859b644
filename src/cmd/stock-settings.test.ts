import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parse } from "smol-toml";
import { awsProvider } from "../../providers/aws/index.ts";
import { azureProvider } from "../../providers/azure/index.ts";
import { AdaptorConfig } from "../adaptor/index.ts";
import { parseConfig } from "../base/config.ts";
import { overlay } from "../base/overlay.ts";
import { NodeConfig } from "../node/index.ts";
import { stockKataConfig } from "./stock-config.ts";
import { clusterOf, readStockSettings } from "./stock-settings.ts";

/** As the stock chart's ConfigMap and Secret give it. */
const CONFIG_MAP = {
  CLOUD_PROVIDER: "aws",
  NODE_NAME: "ip-10-0-1-2.ec2.internal",
  PODS_DIR: "/run/peerpod/pods",
  PROXY_TIMEOUT: "5m30s",
  VXLAN_PORT: "8472",
  PEERPODS_LIMIT_PER_NODE: "12",
  ENABLE_SCRATCH_SPACE: "TRUE",
  TLS_CIPHER_SUITES: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
  POD_SUBNET_CIDRS: "10.96.0.0/12",
  PAUSE_IMAGE: "",
  AWS_REGION: "us-east-2",
  AWS_SUBNET_ID: "subnet-0123456789abcdef0",
  AWS_SG_IDS: "sg-0123456789abcdef0,sg-0123456789abcdef1",
  PODVM_AMI_ID: "ami-0123456789abcdef0",
  PODVM_INSTANCE_TYPES: "m6a.large,m6a.xlarge",
  DISABLECVM: "true",
  ROOT_VOLUME_SIZE: "0",
  TAGS: "team=a,cost center=b=c",
  KUBERNETES_SERVICE_HOST: "10.96.0.1",
};

const at = (adaptor: object, key: string): unknown =>
  (adaptor as { providers?: { aws?: Record<string, unknown> } }).providers?.aws?.[key];

describe("the stock adaptor's settings", () => {
  it("of an unchanged ConfigMap give valid configurations that say the same", () => {
    const { node, adaptor, warnings } = readStockSettings([], CONFIG_MAP);
    assert.deepEqual(warnings, []);
    const config = parseConfig(NodeConfig, node, "node");
    assert.equal(config.stock?.socket, "/run/peerpod/hypervisor.sock");
    assert.equal(config.stock?.connectTimeoutMs, 330_000);
    assert.equal(config.stock?.scratchSpace, true);
    assert.equal(config.stock?.tls.cipherSuites.length, 2);
    assert.deepEqual(config.stock?.podSubnets, ["10.96.0.0/12"]);
    assert.equal(config.podNetwork.port, 8472);
    const own = parseConfig(AdaptorConfig, adaptor, "adaptor");
    assert.equal(own.provider, "aws");
    assert.equal(own.limits.sandboxes, 12);
    assert.equal(own.cluster, "node-ip-10-0-1-2-ec2-internal");
    const aws = parseConfig(awsProvider.configSchema, own.providers.aws, "aws") as Record<string, unknown>;
    assert.equal(aws.imageId, "ami-0123456789abcdef0");
    assert.deepEqual(aws.instanceTypes, ["m6a.large", "m6a.xlarge"]);
    assert.equal(aws.tee, "none");
    assert.equal(aws.rootDiskGiB, undefined);
    assert.deepEqual(aws.tags, { team: "a", "cost center": "b=c" });
  });

  it("of Azure do as well", () => {
    const network = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network";
    const { adaptor, warnings } = readStockSettings(["azure"], {
      AZURE_CLIENT_ID: "id",
      AZURE_TENANT_ID: "tenant",
      AZURE_SUBSCRIPTION_ID: "01234567-89ab-cdef-0123-456789abcdef",
      AZURE_REGION: "westeurope",
      AZURE_RESOURCE_GROUP: "pods",
      AZURE_INSTANCE_SIZES: "Standard_DC2as_v5,Standard_DC4as_v5",
      AZURE_SUBNET_ID: `${network}/virtualNetworks/v/subnets/a`,
      AZURE_NSG_ID: `${network}/networkSecurityGroups/n`,
      AZURE_IMAGE_ID: "/CommunityGalleries/g/Images/i/Versions/1.0.0",
      SSH_USERNAME: "peerpod",
      DISABLECVM: "false",
      ROOT_VOLUME_SIZE: "40",
      TAGS: "a=b",
    });
    assert.deepEqual(warnings, []);
    const { providers } = parseConfig(AdaptorConfig, adaptor, "adaptor");
    const azure = parseConfig(azureProvider.configSchema, providers.azure, "azure") as Record<string, unknown>;
    assert.deepEqual(azure.subnets, [`${network}/virtualNetworks/v/subnets/a`]);
    assert.deepEqual([azure.location, azure.rootDiskGiB, azure.tee], ["westeurope", 40, "any"]);
  });

  it("come from Go's flags too: those win, and lists are joined", () => {
    const argv = [
      "aws",
      "-vxlan-port=4790",
      "--pods-dir",
      "/p",
      "-enable-scratch-space",
      "-pod-subnet-cidrs",
      "10.1.0.0/16",
    ];
    const { node, adaptor } = readStockSettings(argv, { ...CONFIG_MAP, CLOUD_PROVIDER: "gcp" });
    const config = parseConfig(NodeConfig, node, "node");
    assert.equal(config.podNetwork.port, 4790);
    assert.equal(config.stock?.podsDir, "/p");
    assert.deepEqual(config.stock?.podSubnets, ["10.96.0.0/12", "10.1.0.0/16"]);
    assert.equal(adaptor.provider, "aws");
    assert.throws(() => readStockSettings(["aws", "-nope"], {}), /-nope is no flag/);
    assert.throws(() => readStockSettings(["aws", "-use-public-ip=yes"], {}), /-use-public-ip cannot be "yes"/);
    assert.equal(at(readStockSettings(["aws", "-use-public-ip=T"], {}).adaptor, "publicIp"), true);
    assert.equal(at(readStockSettings(["aws"], { USE_PUBLIC_IP: "T" }).adaptor, "publicIp"), false);
    const { env } = readStockSettings(["azure", "-clientid", "c", "-secret=s"], {});
    assert.deepEqual(env, { AZURE_CLIENT_ID: "c", AZURE_CLIENT_SECRET: "s" });
    assert.throws(() => readStockSettings(["aws", "-vxlan-port", "x"], {}), /-vxlan-port cannot be "x"/);
  });

  it("that have no meaning here, or none that is known, are named", () => {
    const { warnings } = readStockSettings([], {
      TLS_SKIP_VERIFY: "true",
      ENABLE_CLOUD_PROVIDER_EXTERNAL_PLUGIN: "true",
      CLOUD_CONFIG_VERIFY: "false",
      VXLAN_PORT: "many",
      AZURE_NEW_THING: "1",
      PATH: "/bin",
    });
    assert.equal(warnings.length, 4, warnings.join("\n"));
    assert.match(warnings.join("\n"), /VXLAN_PORT="many"/);
    assert.match(warnings.join("\n"), /TLS_SKIP_VERIFY\) has no meaning here: pod VMs are always verified/);
    assert.match(warnings.join("\n"), /AZURE_NEW_THING/);
    assert.match(
      warnings.join("\n"),
      /^ENABLE_CLOUD_PROVIDER_EXTERNAL_PLUGIN has no meaning here: providers are folders/m,
    );
  });

  it("give each node's VMs a tag of their own: an adaptor on each node must not take another's for orphans", () => {
    assert.notEqual(clusterOf("a"), clusterOf("b"));
    assert.match(clusterOf(`${"x".repeat(80)}.`), /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/);
  });
});

describe("laying one configuration over another", () => {
  it("goes table by table and leaves both alone", () => {
    const base = { a: { x: 1, y: 2 }, b: [1] };
    assert.deepEqual(overlay(base, { a: { y: 3 }, b: [2], c: { d: 1 } }), { a: { x: 1, y: 3 }, b: [2], c: { d: 1 } });
    assert.deepEqual(base, { a: { x: 1, y: 2 }, b: [1] });
  });
});

describe("configuration-remote.toml", () => {
  for (const shim of ["go", "rust"] as const) {
    it(`is TOML that ${shim}'s shim has the keys of`, () => {
      const config = parse(stockKataConfig({ shim, socket: "/run/x.sock" })) as Record<
        string,
        Record<string, Record<string, unknown>>
      >;
      assert.equal(config.hypervisor?.remote?.remote_hypervisor_socket, "/run/x.sock");
      assert.equal(config.runtime?.disable_new_netns, shim === "go");
      assert.equal(config.runtime?.static_sandbox_resource_mgmt, true);
      assert.equal(
        shim === "go" ? config.agent?.kata?.dial_timeout : config.agent?.kata?.reconnect_timeout_ms,
        shim === "go" ? 30 : 30_000,
      );
    });
  }
});

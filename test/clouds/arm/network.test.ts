import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { openSdkClients, refusal, type SdkClients } from "./sdk-clients.ts";

let endpoint: SdkClients["endpoint"];
let network: SdkClients["network"];
let compute: SdkClients["compute"];
const location = "westeurope";

beforeEach(async () => {
  ({ endpoint, network, compute } = await openSdkClients());
});
afterEach(async () => {
  await endpoint[Symbol.asyncDispose]();
  assert.deepEqual(endpoint.replyProblems, []);
});

async function all<T>(list: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of list) found.push(item);
  return found;
}

/** A network with one subnet. */
async function makeNetwork(prefix = "10.8.1.0/29"): Promise<string> {
  const made = await network.virtualNetworks.createOrUpdate("pods", "own", {
    ...{ location, addressSpace: { addressPrefixes: ["10.8.0.0/16"] } },
    subnets: [{ name: "a", addressPrefix: prefix }],
  });
  return made.subnets?.[0]?.id ?? "";
}

describe("networks of the ARM endpoint", () => {
  it("give out a subnet's addresses, all but Azure's own five, and say when it is full", async () => {
    const subnet = { id: await makeNetwork() };
    const put = (name: string) =>
      network.networkInterfaces.createOrUpdate("pods", name, { location, ipConfigurations: [{ name: "ip", subnet }] });
    const made = [await put("a"), await put("b"), await put("c")];
    assert.deepEqual(
      made.map((nic) => nic.ipConfigurations?.[0]?.privateIPAddress),
      ["10.8.1.4", "10.8.1.5", "10.8.1.6"],
    );
    assert.equal(await refusal(put("d").submitted()), "400 SubnetIsFull");
    const inUse = network.virtualNetworks.delete("pods", "own").submitted();
    assert.equal(await refusal(inUse), "400 InUseSubnetCannotBeDeleted");
    for (const name of ["a", "b", "c"]) await network.networkInterfaces.delete("pods", name);
    await network.virtualNetworks.delete("pods", "own");
    assert.deepEqual(endpoint.cloud.leftovers(), []);
  });

  it("refuse prefixes that are none, lie outside or overlap", async () => {
    assert.equal(await refusal(makeNetwork("10.8.1.0")), "400 InvalidCIDRNotation");
    assert.equal(await refusal(makeNetwork("10.9.1.0/24")), "400 NetcfgInvalidSubnet");
    await makeNetwork("10.8.1.0/24");
    const put = (name: string, addressPrefix: string) =>
      network.subnets.createOrUpdate("pods", "own", name, { addressPrefix }).submitted();
    assert.equal(await refusal(put("b", "10.8.1.128/25")), "400 NetcfgSubnetRangesOverlap");
    assert.equal(await refusal(put("b", "10.8.2.0/24")), "accepted");
    assert.deepEqual((await all(network.subnets.list("pods", "own"))).map((s) => s.name).sort(), ["a", "b"]);
  });

  it("show a security group's rules with those that every group has, and keep it while it is used", async () => {
    const rule = {
      ...{ name: "tunnel", protocol: "Tcp", access: "Allow", direction: "Inbound", priority: 100 },
      ...{ sourcePortRange: "*", destinationPortRange: "15150" },
      ...{ sourceAddressPrefix: "VirtualNetwork", destinationAddressPrefix: "*" },
    } as const;
    const put = (priority: number) =>
      network.networkSecurityGroups.createOrUpdate("pods", "own", { location, securityRules: [{ ...rule, priority }] });
    assert.equal(await refusal(put(5).submitted()), "400 SecurityRuleInvalidPriority");
    const group = await put(200);
    assert.equal(group.securityRules?.[0]?.destinationPortRange, "15150");
    assert.equal(group.defaultSecurityRules?.length, 6);
    await network.networkInterfaces.createOrUpdate("pods", "nic", {
      ...{ location, networkSecurityGroup: { id: group.id ?? "" } },
      ipConfigurations: [{ name: "ip", subnet: { id: await makeNetwork() } }],
    });
    const remove = () => network.networkSecurityGroups.delete("pods", "own").submitted();
    assert.equal(await refusal(remove()), "400 InUseNetworkSecurityGroupCannotBeDeleted");
    await network.networkInterfaces.delete("pods", "nic");
    assert.equal(await refusal(remove()), "accepted");
  });

  it("keep a public address while an interface has it", async () => {
    const put = (sku: "Basic" | "Standard", publicIPAllocationMethod: "Dynamic" | "Static") =>
      network.publicIPAddresses.createOrUpdate("pods", "ip", {
        location,
        sku: { name: sku },
        publicIPAllocationMethod,
      });
    assert.equal(await refusal(put("Standard", "Dynamic").submitted()), "400 StandardSkuPublicIPAddressesMustBeStatic");
    const ip = await put("Standard", "Static");
    assert.match(ip.ipAddress ?? "", /^20\./);
    const subnet = { id: await makeNetwork() };
    await network.networkInterfaces.createOrUpdate("pods", "nic", {
      ...{ location, ipConfigurations: [{ name: "ip", subnet, publicIPAddress: { id: ip.id ?? "" } }] },
    });
    const remove = () => network.publicIPAddresses.delete("pods", "ip").submitted();
    assert.equal(await refusal(remove()), "400 PublicIPAddressCannotBeDeleted");
    await network.networkInterfaces.delete("pods", "nic");
    assert.equal(await refusal(remove()), "accepted");
    endpoint.cloud.knobs.quota.set("PublicIPAddresses", 0);
    assert.equal(await refusal(put("Standard", "Static").submitted()), "400 PublicIPCountLimitReached");
    const usages = await all(network.usages.list(location));
    assert.deepEqual(usages.map((u) => [u.name.value, u.limit]).at(-1), ["PublicIPAddresses", 0]);
  });
});

describe("what there is to choose from at the ARM endpoint", () => {
  it("sizes with zones and restrictions, by location only", async () => {
    endpoint.cloud.knobs.restricted.add("Standard_DC2as_v5/1").add("Standard_D2s_v5");
    const skus = await all(compute.resourceSkus.list({ filter: "location eq 'westeurope'" }));
    const of = (name: string) => skus.find((s) => s.name === name);
    assert.deepEqual(of("Standard_DC2as_v5")?.locationInfo?.[0]?.zones, ["1", "2", "3"]);
    assert.deepEqual(of("Standard_DC2as_v5")?.restrictions?.[0]?.restrictionInfo?.zones, ["1"]);
    assert.equal(of("Standard_D2s_v5")?.restrictions?.[0]?.type, "Location");
    assert.equal(
      of("Standard_DC2es_v5")?.capabilities?.find((c) => c.name === "ConfidentialComputingType")?.value,
      "TDX",
    );
    const other = all(compute.resourceSkus.list({ filter: "name eq 'Standard_D2s_v5'" }));
    assert.equal(await refusal(other), "400 InvalidParameter");
  });

  it("images of the marketplace and of a community gallery", async () => {
    const versions = await compute.virtualMachineImages.list(location, "Canonical", "ubuntu-24_04-lts", "cvm");
    assert.deepEqual(
      versions.map((v) => v.name),
      ["24.04.202601010", "24.04.202602020"],
    );
    const image = await compute.virtualMachineImages.get(
      location,
      "canonical",
      "ubuntu-24_04-lts",
      "cvm",
      versions[0]?.name ?? "",
    );
    assert.equal(image.hyperVGeneration, "V2");
    const [gallery, name] = ["cocopodvm-d0e4f35f-5530-4b9c-8596-112487cdea85", "podvm_image0"];
    const shared = await all(compute.communityGalleryImageVersions.list(location, gallery, name));
    assert.deepEqual(
      shared.map((v) => v.name),
      ["2026.01.10", "2026.02.20"],
    );
    const elsewhere = compute.communityGalleryImages.get("westus", gallery, name);
    assert.equal(await refusal(elsewhere), "404 CommunityGalleryNotFound");
  });

  it("groups, locations and the caller's own permissions", async () => {
    const ask = async (method: string, path: string, body?: object): Promise<{ status: number; body: string }> => {
      const authorization = `Bearer ${endpoint.tenant.accessToken("https://management.core.windows.net/")}`;
      const at = `/subscriptions/${endpoint.cloud.id}${path}?api-version=2022-09-01`;
      const content = body === undefined ? Buffer.alloc(0) : Buffer.from(JSON.stringify(body));
      const reply = await endpoint.answer({ method, path: at, headers: { authorization }, body: content });
      return { status: reply?.status ?? 0, body: String(reply?.body ?? "") };
    };
    assert.equal((await ask("PUT", "/resourceGroups/Mine", { location })).status, 201);
    assert.equal((await ask("PUT", "/resourceGroups/mine", { location })).status, 200);
    assert.match(
      (await ask("PUT", "/resourceGroups/mine", { location: "westus" })).body,
      /InvalidResourceGroupLocation/,
    );
    assert.match((await ask("GET", "/resourceGroups")).body, /"name":"pods".*"name":"Mine"/);
    assert.equal((await ask("DELETE", "/resourceGroups/mine")).status, 200);
    assert.match((await ask("GET", "/resourceGroups/mine")).body, /ResourceGroupNotFound/);
    assert.match((await ask("GET", "/locations")).body, /"physicalZone":"westeurope-az1"/);
    endpoint.cloud.knobs.denied.add("Microsoft.Compute/virtualMachines/write");
    const permissions = "/resourceGroups/pods/providers/Microsoft.Authorization/permissions";
    const authorization = `Bearer ${endpoint.tenant.accessToken("https://management.azure.com")}`;
    const reply = await endpoint.answer({
      ...{ method: "GET", path: `/subscriptions/${endpoint.cloud.id}${permissions}?api-version=2022-04-01` },
      ...{ headers: { authorization }, body: Buffer.alloc(0) },
    });
    assert.match(String(reply?.body), /"notActions":\["Microsoft.Compute\/virtualMachines\/write"\]/);
  });
});

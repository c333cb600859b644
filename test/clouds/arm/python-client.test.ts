import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { ArmEndpoint, installAzureSdk } from "./index.ts";

const sdk = await installAzureSdk();
const missing = "missing" in sdk ? sdk.missing : false;

/** What a user of Azure's Python SDK writes: nothing here knows that it is not Azure, but for the addresses. */
const SCRIPT = `
import json, os
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient

url, sub, tenant, client, secret = (os.environ[n] for n in ("URL", "SUBSCRIPTION", "TENANT", "CLIENT", "SECRET"))
credential = ClientSecretCredential(tenant, client, secret, authority=url, disable_instance_discovery=True)
scopes = ["https://management.azure.com/.default"]
compute = ComputeManagementClient(credential, sub, base_url=url, credential_scopes=scopes, polling_interval=0)
network = NetworkManagementClient(credential, sub, base_url=url, credential_scopes=scopes, polling_interval=0)
seen = {}
vnet = network.virtual_networks.begin_create_or_update("pods", "own", {
    "location": "westeurope", "properties": {"addressSpace": {"addressPrefixes": ["10.7.0.0/16"]},
    "subnets": [{"name": "a", "properties": {"addressPrefix": "10.7.1.0/24"}}]}}).result()
nic = network.network_interfaces.begin_create_or_update("pods", "nic", {
    "location": "westeurope", "properties": {"ipConfigurations": [{"name": "ip", "properties": {"subnet": {"id": vnet.subnets[0].id}}}]}}).result()
seen["address"] = nic.ip_configurations[0].private_ip_address
key = os.environ["KEY"]
def body(nic_id):
    return {
        "location": "westeurope", "zones": ["1"], "tags": {"made-by": "python"},
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "storageProfile": {
                "imageReference": {"publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server", "version": "latest"},
                "osDisk": {"createOption": "FromImage", "deleteOption": "Delete"}},
            "osProfile": {"computerName": "vm", "adminUsername": "azureuser", "linuxConfiguration": {
                "disablePasswordAuthentication": True,
                "ssh": {"publicKeys": [{"path": "/home/azureuser/.ssh/authorized_keys", "keyData": key}]}}},
            "networkProfile": {"networkInterfaces": [{"id": nic_id, "properties": {"deleteOption": "Delete"}}]}}}
vm = compute.virtual_machines.begin_create_or_update("pods", "vm", body(nic.id)).result()
seen["created"] = [vm.name, vm.provisioning_state, vm.zones, vm.storage_profile.image_reference.exact_version]
view = compute.virtual_machines.get("pods", "vm", expand="instanceView").instance_view
seen["statuses"] = [s.code for s in view.statuses]
vm = compute.virtual_machines.begin_update("pods", "vm", {"tags": {"made-by": "python", "more": "1"}}).result()
seen["tags"] = dict(vm.tags)
for n in range(4):
    name = "page%d" % n
    config = {"name": "nic", "properties": {"deleteOption": "Delete", "ipConfigurations": [{"name": "ip", "properties": {"subnet": {"id": vnet.subnets[0].id}}}]}}
    b = body(nic.id)
    b["properties"]["networkProfile"] = {"networkApiVersion": "2022-11-01", "networkInterfaceConfigurations": [config]}
    compute.virtual_machines.begin_create_or_update("pods", name, b).result()
seen["listed"] = sorted(v.name for v in compute.virtual_machines.list("pods"))
seen["everywhere"] = len(list(compute.virtual_machines.list_all()))
seen["sizes"] = sum(1 for s in compute.resource_skus.list(filter="location eq 'westeurope'") if s.resource_type == "virtualMachines")
seen["cores"] = next(u.current_value for u in compute.usage.list("westeurope") if u.name.value == "cores")
errors = []
for make in (
    lambda: compute.virtual_machines.get("pods", "nobody"),
    lambda: compute.virtual_machines.get("nowhere", "vm"),
    lambda: network.network_interfaces.begin_delete("pods", "nic").result(),
    lambda: network.subnets.begin_create_or_update("pods", "own", "b", {"properties": {"addressPrefix": "10.7.1.128/25"}}).result(),
    lambda: compute.disks.begin_delete("pods", vm.storage_profile.os_disk.name).result(),
):
    try:
        make()
        errors.append("accepted")
    except HttpResponseError as e:
        errors.append("%s %s" % (e.status_code, e.error.code))
seen["errors"] = errors
compute.virtual_machines.begin_power_off("pods", "vm").result()
compute.virtual_machines.begin_start("pods", "vm").result()
disk = compute.disks.begin_create_or_update("pods", "data", {"location": "westeurope", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 8}}).result()
seen["disk"] = [disk.disk_state, disk.disk_size_gb]
compute.disks.begin_delete("pods", "data").result()
for v in list(compute.virtual_machines.list("pods")):
    compute.virtual_machines.begin_delete("pods", v.name).result()
network.virtual_networks.begin_delete("pods", "own").result()
print(json.dumps(seen))
`;

describe("Azure's Python SDK at the ARM endpoint", { skip: missing }, () => {
  let endpoint: ArmEndpoint;
  let folder: string;
  before(async () => {
    endpoint = await ArmEndpoint.start("missing" in sdk ? {} : { model: sdk.model });
    Object.assign(endpoint.cloud.knobs, { retryAfterS: 0, maxPage: 2 });
    folder = await mkdtemp(join(tmpdir(), "arm-python-"));
    await writeFile(join(folder, "ca.pem"), endpoint.certificates.ca);
    await writeFile(join(folder, "script.py"), SCRIPT);
  });
  after(async () => {
    await endpoint[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it("creates, describes, tags, pages, is refused, and deletes until nothing is left", async () => {
    const { application, id } = endpoint.tenant;
    const { stdout } = await promisify(execFile)("python3", [join(folder, "script.py")], {
      env: {
        ...{ PATH: process.env.PATH, PYTHONPATH: "missing" in sdk ? "" : sdk.path, HOME: folder },
        ...{ REQUESTS_CA_BUNDLE: join(folder, "ca.pem"), URL: endpoint.url, SUBSCRIPTION: endpoint.cloud.id },
        ...{ TENANT: id, CLIENT: application.clientId, SECRET: application.secret, KEY: ED25519 },
      },
      timeout: 100_000,
    });
    assert.deepEqual(JSON.parse(stdout), {
      address: "10.7.1.4",
      created: ["vm", "Succeeded", ["1"], "24.04.202602020"],
      statuses: ["ProvisioningState/succeeded", "PowerState/running"],
      tags: { "made-by": "python", more: "1" },
      listed: ["page0", "page1", "page2", "page3", "vm"],
      ...{ everywhere: 5, sizes: 34, cores: 10 },
      errors: [
        ...["404 ResourceNotFound", "404 ResourceGroupNotFound", "400 NicInUse", "400 NetcfgSubnetRangesOverlap"],
        "409 OperationNotAllowed",
      ],
      disk: ["Unattached", 8],
    });
    assert.deepEqual(endpoint.cloud.leftovers(), []);
    assert.deepEqual(endpoint.replyProblems, []);
    assert.ok(endpoint.count("VirtualMachines_List") >= 6, "five VMs in pages of two, twice");
  });
});

/** A public key that nobody has the other half of. */
const ED25519 = `ssh-ed25519 ${Buffer.concat([
  Buffer.from([0, 0, 0, 11]),
  Buffer.from("ssh-ed25519"),
  Buffer.from([0, 0, 0, 32]),
  Buffer.alloc(32, 7),
]).toString("base64")}`;

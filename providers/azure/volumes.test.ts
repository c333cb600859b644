import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ComputeManagementClient } from "@azure/arm-compute";
import { ClientSecretCredential } from "@azure/identity";
import { background } from "../../src/base/call.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { Provider, VolumeAttachment } from "../../src/provider/index.ts";
import { AZURE_CONFIG, AzureWorld, installAzureSdk, trustInThisProcess } from "../../test/clouds/arm/index.ts";
import { deleteUntilGone, settledInstance } from "./test-support.ts";

const sdk = await installAzureSdk();
const VM = "Microsoft.Compute/virtualMachines";

describe("disks that outlive VMs", () => {
  let world: AzureWorld;
  let compute: ComputeManagementClient;
  beforeEach(async () => {
    world = await AzureWorld.open("missing" in sdk ? undefined : sdk.model);
    const { url: endpoint, tenant, certificates, cloud } = world.endpoint;
    cloud.knobs.retryAfterS = 0;
    trustInThisProcess(certificates.ca);
    const { clientId, secret } = tenant.application;
    const authority = { authorityHost: endpoint, disableInstanceDiscovery: true };
    const credential = new ClientSecretCredential(tenant.id, clientId, secret, authority);
    compute = new ComputeManagementClient(credential, cloud.id, { endpoint });
  });
  afterEach(() => world[Symbol.asyncDispose]());

  /** @param zone undefined = in none */
  async function makeDisk(name: string, zone: string | undefined): Promise<string> {
    const poller = compute.disks.createOrUpdate(AZURE_CONFIG.resourceGroup, name, {
      ...{ location: AZURE_CONFIG.location, sku: { name: "StandardSSD_LRS" }, diskSizeGB: 1 },
      ...(zone === undefined ? {} : { zones: [zone] }),
      creationData: { createOption: "Empty" },
    });
    await poller.submitted();
    world.clock.advance(60_000);
    return (await compute.disks.get(AZURE_CONFIG.resourceGroup, name)).id ?? "";
  }
  async function made(provider: Provider, volumes: readonly string[]): Promise<InstanceId> {
    const { id } = await provider.createInstance(world.spec({ volumes }), background());
    await settledInstance(provider, id);
    return id;
  }
  const vms = () => world.endpoint.cloud.all(VM);
  const attachment = (provider: Provider): VolumeAttachment => {
    assert.ok(provider.volumes !== undefined);
    return provider.volumes;
  };

  it("are in the request that makes the VM, in their zone, at the first LUNs; its deletion lets go of them", async () => {
    const provider = await world.provider({ dataDisksGiB: [3] });
    const disks = [await makeDisk("one", "2"), await makeDisk("two", "2")];
    const id = await made(provider, disks);
    await attachment(provider).attach(id, disks, background());
    const [vm] = vms();
    assert.deepEqual(vm?.zones, ["2"]);
    assert.deepEqual(
      vm?.dataDisks.map((d) => [d.lun, d.deleteOption, d.id.split("/").at(-1)]),
      [
        [0, "Detach", "one"],
        [1, "Detach", "two"],
        [2, "Delete", `${id}-data2`],
      ],
    );
    await attachment(provider).detach(id, disks, background());
    await deleteUntilGone(provider, id);
    const left = world.endpoint.cloud.leftovers().map((l) => l.id.split("/").at(-1));
    assert.deepEqual(left.sort(), ["one", "two"]);
    assert.equal((await compute.disks.get(AZURE_CONFIG.resourceGroup, "one")).managedBy, undefined);
    // Nobody's for the collector: they carry none of our tags.
    assert.deepEqual(await provider.listInstances("c1", background()), []);
  });

  it("bring a VM that may be anywhere into their zone", async () => {
    const provider = await world.provider({ zones: [] });
    await made(provider, [await makeDisk("one", "1")]);
    assert.deepEqual(vms()[0]?.zones, ["1"]);
  });

  it("are waited for while another VM has them, and given to the same VM again", async () => {
    const provider = await world.provider();
    const disk = await makeDisk("one", "1");
    const spec = world.spec({ volumes: [disk] });
    const { id } = await provider.createInstance(spec, background());
    await settledInstance(provider, id);
    const again = await (await world.provider()).createInstance(spec, background());
    assert.equal(again.id, id);
    await assert.rejects(provider.createInstance(world.spec({ volumes: [disk] }), background()), {
      ...{ code: "unavailable", retryable: true },
      message: new RegExp(`disk one is attached to ${id} still`),
    });
  });

  it("are refused by name: what is none, what is not there, what is in several zones or in one that is not used", async () => {
    const provider = await world.provider();
    assert.throws(() => attachment(provider).check("vol-1"), { code: "invalid_argument", message: /"vol-1" is no/ });
    const [near, other, far] = [await makeDisk("a", "1"), await makeDisk("b", "2"), await makeDisk("c", "3")];
    attachment(provider).check(near);
    const refuse = (volumes: readonly string[], code: string, message: RegExp): Promise<void> =>
      assert.rejects(provider.createInstance(world.spec({ volumes }), background()), { code, message });
    await refuse([`${near}-missing`], "invalid_argument", /there is no disk .*a-missing/);
    await refuse([near, other], "invalid_argument", /disks a, b are in zones 1, 2/);
    await refuse([far], "failed_precondition", /are in zone 3, where none of the sizes/);
    assert.deepEqual(vms(), []);
  });
});

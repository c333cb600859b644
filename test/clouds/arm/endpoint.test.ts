import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { VirtualMachine } from "@azure/arm-compute";
import { AnonymousCredential, PageBlobClient } from "@azure/storage-blob";
import { openSdkClients, refusal, type SdkClients } from "./sdk-clients.ts";

let endpoint: SdkClients["endpoint"];
let clock: SdkClients["clock"];
let compute: SdkClients["compute"];
let network: SdkClients["network"];
let modelled: boolean;
let gallery: string;
let subnet: string;

beforeEach(async () => {
  ({ endpoint, clock, compute, network, modelled } = await openSdkClients());
  const group = endpoint.cloud.groupId("pods");
  gallery = `${group}/providers/Microsoft.Compute/galleries/podvm/images`;
  subnet = `${group}/providers/Microsoft.Network/virtualNetworks/pods-vnet/subnets/podvms`;
});
afterEach(async () => {
  await endpoint[Symbol.asyncDispose]();
  assert.deepEqual(endpoint.replyProblems, []);
});

/** A confidential VM of the kind that everything in it goes away with it. */
function vm(change: Partial<VirtualMachine> = {}): VirtualMachine {
  return {
    location: "westeurope",
    zones: ["2"],
    tags: { owner: "test" },
    hardwareProfile: { vmSize: "Standard_DC2as_v5" },
    securityProfile: {
      securityType: "ConfidentialVM",
      uefiSettings: { vTpmEnabled: true, secureBootEnabled: false },
    },
    storageProfile: {
      imageReference: { id: `${gallery}/kata-remote` },
      osDisk: {
        createOption: "FromImage",
        deleteOption: "Delete",
        managedDisk: { securityProfile: { securityEncryptionType: "VMGuestStateOnly" } },
      },
    },
    networkProfile: {
      networkApiVersion: "2022-11-01",
      networkInterfaceConfigurations: [
        { name: "nic", deleteOption: "Delete", ipConfigurations: [{ name: "ip", subnet: { id: subnet } }] },
      ],
    },
    ...change,
  };
}
function image(name: string): Pick<VirtualMachine, "storageProfile"> {
  const osDisk = vm().storageProfile?.osDisk;
  return { storageProfile: { imageReference: { id: `${gallery}/${name}` }, ...(osDisk && { osDisk }) } };
}
/** One that is not confidential. */
function plain(change: Partial<VirtualMachine> = {}): VirtualMachine {
  const { securityProfile: _, ...rest } = vm();
  return {
    ...rest,
    hardwareProfile: { vmSize: "Standard_D2s_v5" },
    storageProfile: {
      imageReference: { id: `${gallery}/plain` },
      osDisk: { createOption: "FromImage", deleteOption: "Delete" },
    },
    ...change,
  };
}
/** Sends without waiting for what comes of it. */
function begin(name: string, body: VirtualMachine): Promise<void> {
  return compute.virtualMachines.createOrUpdate("pods", name, body).submitted();
}
describe("virtual machines of the ARM endpoint, to unmodified SDK", () => {
  it("makes one with all of its parts, and takes them all away again", async () => {
    const made = await compute.virtualMachines.createOrUpdate("pods", "one", vm());
    assert.equal(made.provisioningState, "Succeeded");
    const [reference] = made.networkProfile?.networkInterfaces ?? [];
    const nic = await network.networkInterfaces.get("pods", reference?.id?.split("/").at(-1) ?? "");
    assert.equal(nic.ipConfigurations?.[0]?.privateIPAddress, "10.0.0.4");
    assert.equal(nic.virtualMachine?.id, made.id);
    const [disk] = endpoint.cloud.all("Microsoft.Compute/disks");
    assert.deepEqual(Object.fromEntries(disk?.tags ?? []), { owner: "test" });
    assert.equal(disk?.sizeGiB, 4);
    await compute.virtualMachines.delete("pods", "one");
    assert.deepEqual(endpoint.cloud.leftovers(), []);
    assert.equal(await refusal(compute.virtualMachines.get("pods", "one")), "404 ResourceNotFound");
    await compute.virtualMachines.delete("pods", "one"); // 204
  });

  it("keeps what was to be detached", async () => {
    const network1 = vm().networkProfile?.networkInterfaceConfigurations?.[0];
    const keeping = {
      ...vm(),
      storageProfile: {
        ...vm().storageProfile,
        osDisk: { ...vm().storageProfile?.osDisk, createOption: "FromImage", deleteOption: "Detach" },
      },
      networkProfile: {
        networkApiVersion: "2022-11-01",
        networkInterfaceConfigurations: [{ ...network1, name: "nic", deleteOption: "Detach" }],
      },
    } as VirtualMachine;
    await compute.virtualMachines.createOrUpdate("pods", "one", keeping);
    await compute.virtualMachines.delete("pods", "one");
    assert.deepEqual(
      endpoint.cloud
        .leftovers()
        .map((l) => l.kind)
        .sort(),
      ["disks", "networkInterfaces"],
    );
  });

  it("takes its time: Creating, Succeeded, Deleting, gone, each by the clock", async () => {
    Object.assign(endpoint.cloud.knobs, { createMs: 60_000, deleteMs: 30_000 });
    await begin("one", vm());
    const state = async (): Promise<string | undefined> =>
      (await compute.virtualMachines.get("pods", "one")).provisioningState;
    assert.equal(await state(), "Creating");
    clock.advance(59_999);
    assert.equal(await state(), "Creating");
    clock.advance(1);
    assert.equal(await state(), "Succeeded");
    await compute.virtualMachines.delete("pods", "one").submitted();
    assert.equal(await state(), "Deleting");
    assert.equal(await refusal(begin("one", vm())), "409 OperationNotAllowed");
    clock.advance(30_000);
    assert.equal(await refusal(state()), "404 ResourceNotFound");
  });

  it("refuses a second create by header, and changes of what cannot change without it", async () => {
    await compute.virtualMachines.createOrUpdate("pods", "one", vm());
    const again = compute.virtualMachines.createOrUpdate("pods", "one", vm(), { ifNoneMatch: "*" });
    assert.equal(await refusal(again.submitted()), "412 PreconditionFailed");
    assert.equal(await refusal(begin("one", vm())), "409 PropertyChangeNotAllowed");
    const got = await compute.virtualMachines.get("pods", "one");
    const moved = { ...got, zones: ["1"] };
    assert.equal(await refusal(begin("one", moved)), "409 PropertyChangeNotAllowed");
    assert.equal(await refusal(begin("one", { ...got, location: "westus" })), "409 InvalidResourceLocation");
    const tagged = await compute.virtualMachines.createOrUpdate("pods", "one", { ...got, tags: { a: "b" } });
    assert.deepEqual(tagged.tags, { a: "b" });
    const stale = compute.virtualMachines.update("pods", "one", { tags: {} }, { ifMatch: '"0"' });
    assert.equal(await refusal(stale.submitted()), "412 PreconditionFailed");
  });

  it("gives user data only to those who ask for it", async () => {
    const userData = Buffer.from("#cloud-config\n").toString("base64");
    await compute.virtualMachines.createOrUpdate("pods", "one", vm({ userData }));
    assert.equal((await compute.virtualMachines.get("pods", "one")).userData, undefined);
    assert.equal((await compute.virtualMachines.get("pods", "one", { expand: "userData" })).userData, userData);
  });

  it("stops, deallocates and starts", async () => {
    await compute.virtualMachines.createOrUpdate("pods", "one", vm());
    const power = async (): Promise<string | undefined> =>
      (await compute.virtualMachines.instanceView("pods", "one")).statuses?.at(-1)?.code;
    assert.equal(await power(), "PowerState/running");
    await compute.virtualMachines.powerOff("pods", "one");
    assert.equal(await power(), "PowerState/stopped");
    await compute.virtualMachines.deallocate("pods", "one");
    assert.equal(await power(), "PowerState/deallocated");
    await compute.virtualMachines.start("pods", "one");
    assert.equal(await power(), "PowerState/running");
  });

  it("lists in pages whose links lead on, also with an empty first one and with late entries", async () => {
    for (const name of ["a", "b", "c"]) await compute.virtualMachines.createOrUpdate("pods", name, vm());
    Object.assign(endpoint.cloud.knobs, { maxPage: 2, emptyFirstPage: true });
    const names: string[] = [];
    for await (const { name } of compute.virtualMachines.list("pods")) names.push(name ?? "");
    assert.deepEqual(names, ["a", "b", "c"]);
    assert.equal(endpoint.count("VirtualMachines_List"), 3);
    endpoint.cloud.knobs.hiddenLists = 3;
    await compute.virtualMachines.createOrUpdate("pods", "late", vm());
    const all = async (): Promise<number> => {
      let count = 0;
      for await (const _ of compute.virtualMachines.listAll()) count++;
      return count;
    };
    assert.equal(await all(), 3);
    assert.equal(await all(), 4);
  });
});

describe("what the ARM endpoint refuses", () => {
  it("combinations and values that Compute and Network refuse", async () => {
    const boot = vm().networkProfile?.networkInterfaceConfigurations?.[0];
    const osDisk = vm().storageProfile?.osDisk;
    const inline = (change: object): Pick<VirtualMachine, "networkProfile"> => ({
      networkProfile: {
        networkApiVersion: "2022-11-01",
        networkInterfaceConfigurations: [{ ...boot, name: "nic", ...change }] as never,
      },
    });
    const refused: readonly (readonly [VirtualMachine, string])[] = [
      [vm({ hardwareProfile: { vmSize: "Standard_D2s_v5" } }), "400 BadRequest"],
      [vm({ hardwareProfile: { vmSize: "Standard_Nothing" } }), "400 InvalidParameter"],
      [vm({ securityProfile: {} }), "400 BadRequest"],
      [vm({ securityProfile: { securityType: "ConfidentialVM" } }), "400 InvalidParameter"],
      [
        vm({ storageProfile: { ...image("kata-remote").storageProfile, osDisk: { createOption: "FromImage" } } }),
        "400 InvalidParameter",
      ],
      [vm(image("plain")), "400 BadRequest"],
      [vm(image("generalized")), "400 InvalidParameter"],
      [vm(image("empty")), "404 GalleryImageNotFound"],
      [vm(image("nothing")), "404 GalleryImageNotFound"],
      [vm({ osProfile: { computerName: "one", adminUsername: "peerpod" } }), "400 InvalidParameter"],
      [
        plain({ storageProfile: { imageReference: { id: `${gallery}/arm` }, osDisk: { createOption: "FromImage" } } }),
        "400 BadRequest",
      ],
      [
        plain({
          storageProfile: {
            imageReference: { publisher: "Canonical", offer: "x", sku: "y", version: "latest" },
            osDisk: { createOption: "FromImage" },
          },
        }),
        "404 PlatformImageNotFound",
      ],
      [
        plain({
          storageProfile: {
            imageReference: { publisher: "podvm-publisher", offer: "podvm", sku: "cvm", version: "latest" },
            osDisk: { createOption: "FromImage" },
          },
        }),
        "400 InvalidParameter",
      ],
      [vm({ zones: ["1", "2"] }), "400 InvalidParameter"],
      [vm({ zones: ["9"] }), "400 InvalidAvailabilityZone"],
      [vm({ location: "mars" }), "400 LocationNotAvailableForResourceType"],
      [vm({ evictionPolicy: "Delete" }), "400 InvalidParameter"],
      [vm({ billingProfile: { maxPrice: 1 } }), "400 InvalidParameter"],
      [vm({ userData: "###" }), "400 InvalidParameter"],
      [vm({ userData: Buffer.alloc(49_155).toString("base64") }), "400 InvalidParameter"],
      [vm({ tags: { "a/b": "c" } }), "400 InvalidTagNameCharacters"],
      [vm({ tags: Object.fromEntries(Array.from({ length: 51 }, (_, i) => [`t${i}`, ""])) }), "400 InvalidTagCount"],
      [vm({ networkProfile: {} }), "400 InvalidParameter"],
      [vm({ networkProfile: { ...vm().networkProfile, networkInterfaces: [{ id: subnet }] } }), "400 InvalidParameter"],
      [
        vm(inline({ ipConfigurations: [{ name: "ip", subnet: { id: `${subnet}x` } }] })),
        "400 InvalidResourceReference",
      ],
      [vm(inline({ networkSecurityGroup: { id: subnet } })), "400 InvalidResourceReference"],
      [
        vm(
          inline({
            ipConfigurations: [{ name: "ip", subnet: { id: subnet }, publicIPAddressConfiguration: { name: "p" } }],
          }),
        ),
        "400 BasicSkuPublicIpCreationNotAllowed",
      ],
      [
        vm({
          storageProfile: {
            ...image("kata-remote").storageProfile,
            osDisk: { ...osDisk, createOption: "FromImage", diskSizeGB: 1 },
          },
        }),
        "400 InvalidParameter",
      ],
      [
        plain({ hardwareProfile: { vmSize: "Standard_NC4as_T4_v3" }, location: "westus", zones: [] }),
        "404 GalleryImageNotFound",
      ],
    ];
    for (const [body, code] of refused) {
      assert.equal(await refusal(begin("one", body)), code, JSON.stringify(body));
    }
    assert.equal(await refusal(begin("-wrong", vm())), "400 InvalidResourceName");
    assert.deepEqual(endpoint.cloud.leftovers(), []);
  });

  it("properties, queries and versions that it does not know", async () => {
    const send = async (query: string, body: object): Promise<string> => {
      const id = `${endpoint.cloud.groupId("pods")}/providers/Microsoft.Compute/virtualMachines/one`;
      const authorization = `Bearer ${endpoint.tenant.accessToken("https://management.azure.com")}`;
      const reply = await endpoint.answer({
        ...{ method: "PUT", path: `${id}${query}`, headers: { authorization, host: "test" } },
        body: Buffer.from(JSON.stringify(body)),
      });
      const { error } = JSON.parse(String(reply?.body)) as { error?: { code: string } };
      return `${reply?.status} ${error?.code}`;
    };
    const known = "?api-version=2025-04-01";
    assert.equal(await send("", {}), "400 MissingApiVersionParameter");
    assert.equal(await send("?api-version=2025-04-02", {}), "400 NoRegisteredProviderFound");
    assert.equal(await send("?api-version=latest", {}), "400 InvalidApiVersionParameter");
    assert.equal(await send(known, { location: "westeurope", mood: "good" }), "400 InvalidRequestContent");
    const deeper = { location: "westeurope", properties: { storageProfile: { discs: [] } } };
    if (modelled) {
      assert.equal(await send(known, deeper), "400 BadRequest");
      assert.equal(await send(`${known}&force=true`, {}), "400 InvalidParameter");
      const wrong = { location: "westeurope", properties: { priority: "High" } };
      assert.equal(await send(known, wrong), "400 BadRequest");
    }
    assert.equal(endpoint.cloud.leftovers().length, 0);
  });

  it("whom it does not know, and what they may not do", async () => {
    const get = async (authorization: string | undefined): Promise<string> => {
      const reply = await endpoint.answer({
        ...{ method: "GET", path: `${endpoint.cloud.groupId("pods")}?api-version=2021-04-01`, body: Buffer.alloc(0) },
        headers: authorization === undefined ? {} : { authorization },
      });
      if (reply?.status === 401) assert.match(reply.headers["www-authenticate"] ?? "", /^Bearer authorization_uri=/);
      const { error } = JSON.parse(String(reply?.body)) as { error?: { code: string } };
      return `${reply?.status} ${error?.code ?? ""}`;
    };
    const token = (change: object, resource = "https://management.azure.com"): string =>
      `Bearer ${endpoint.tenant.accessToken(resource, change)}`;
    assert.equal(await get(undefined), "401 AuthenticationFailed");
    assert.equal(await get("Basic x"), "401 AuthenticationFailedInvalidHeader");
    assert.equal(await get("Bearer a.b.c"), "401 InvalidAuthenticationToken");
    assert.equal(await get(token({ exp: 1 })), "401 ExpiredAuthenticationToken");
    assert.equal(await get(token({ tid: "other" })), "401 InvalidAuthenticationTokenTenant");
    assert.equal(await get(token({}, "https://storage.azure.com")), "401 InvalidAuthenticationTokenAudience");
    assert.equal(await get(token({})), "200 ");
    endpoint.cloud.knobs.denied.add("Microsoft.Compute/virtualMachines/write");
    assert.equal(await refusal(begin("one", vm())), "403 AuthorizationFailed");
    assert.equal(await refusal(compute.virtualMachines.get("other", "one")), "404 ResourceGroupNotFound");
  });
});

describe("what goes wrong at the ARM endpoint", () => {
  it("has no room: accepted, then Failed with its parts still there, until it is deleted", async () => {
    endpoint.cloud.knobs.short.add("Standard_DC2as_v5/2");
    await assert.rejects(
      compute.virtualMachines.createOrUpdate("pods", "one", vm()).pollUntilDone(),
      /sufficient capacity/,
    );
    const failed = await compute.virtualMachines.get("pods", "one", { expand: "instanceView" });
    assert.equal(failed.provisioningState, "Failed");
    assert.match(failed.instanceView?.statuses?.[0]?.code ?? "", /^ProvisioningState\/failed\/ZonalAllocationFailed$/);
    assert.equal(failed.networkProfile?.networkInterfaces?.length, 1);
    await compute.virtualMachines.createOrUpdate("pods", "two", vm({ zones: ["1"] }));
    for (const name of ["one", "two"]) await compute.virtualMachines.delete("pods", name);
    assert.deepEqual(endpoint.cloud.leftovers(), []);
  });

  it("refuses sizes, quota and addresses at once", async () => {
    const { knobs } = endpoint.cloud;
    knobs.restricted.add("Standard_DC2as_v5/2");
    assert.equal(await refusal(begin("one", vm())), "409 SkuNotAvailable");
    knobs.quota.set("standardDCASv5Family", 3);
    await begin("two", vm({ zones: ["1"] }));
    assert.equal(await refusal(begin("three", vm({ zones: ["1"] }))), "409 OperationNotAllowed");
    knobs.freeAddresses.set(subnet.toLowerCase(), 1);
    assert.equal(await refusal(begin("four", plain())), "400 SubnetIsFull");
    knobs.freeAddresses.clear();
    knobs.orphanNics = true;
    assert.equal(await refusal(begin("five", vm())), "409 SkuNotAvailable");
    const orphan = endpoint.cloud.all("Microsoft.Network/networkInterfaces").find((nic) => nic.vmId === undefined);
    const remove = (): Promise<void> => network.networkInterfaces.delete("pods", orphan?.name ?? "").submitted();
    assert.equal(await refusal(remove()), "400 NicReservedForAnotherVm");
    clock.advance(180_000);
    assert.equal(await refusal(remove()), "accepted");
    const held = endpoint.cloud.all("Microsoft.Network/networkInterfaces")[0]?.name ?? "";
    assert.equal(await refusal(network.networkInterfaces.delete("pods", held).submitted()), "400 NicInUse");
  });

  it("stays Creating for ever, and can be deleted even so", async () => {
    endpoint.cloud.knobs.stuckCreations = 1;
    await begin("one", vm());
    clock.advance(86_400_000);
    assert.equal((await compute.virtualMachines.get("pods", "one")).provisioningState, "Creating");
    await compute.virtualMachines.delete("pods", "one");
    assert.deepEqual(endpoint.cloud.leftovers(), []);
  });

  it("throttles with Retry-After, drops answers after their effect, and fails when told", async () => {
    const { knobs } = endpoint.cloud;
    knobs.buckets.set("PutVM", { capacity: 1, refillPerSecond: 0.1 });
    endpoint.inject({ action: "VirtualMachines_CreateOrUpdate", afterEffect: true, drop: true });
    await assert.rejects(begin("one", vm()));
    assert.equal(endpoint.cloud.leftovers().filter((l) => l.kind === "virtualMachines").length, 1);
    await assert.rejects(
      begin("two", vm()),
      (e: { code: string; response: { headers: { get(n: string): string } } }) => {
        assert.equal(e.code, "OperationNotAllowed");
        assert.equal(e.response.headers.get("retry-after"), "10");
        return true;
      },
    );
    clock.advance(10_000);
    endpoint.inject({ error: { code: "InternalExecutionError", message: "try again", status: 500 } });
    assert.equal(await refusal(begin("two", vm())), "500 InternalExecutionError");
    knobs.hiddenReads = 1;
    assert.equal(await refusal(begin("two", vm())), "accepted");
    assert.equal(await refusal(compute.virtualMachines.get("pods", "two")), "404 ResourceNotFound");
    assert.equal(await refusal(compute.virtualMachines.get("pods", "two")), "accepted");
  });
});

describe("images of the ARM endpoint", () => {
  it("go from an uploaded disk into a gallery version that VMs start from", async () => {
    const bytes = 24 << 20;
    await compute.disks.createOrUpdate("pods", "upload", {
      ...{ location: "westeurope", osType: "Linux", hyperVGeneration: "V2" },
      creationData: { createOption: "Upload", uploadSizeBytes: bytes + 512 },
    });
    const { accessSAS } = await compute.disks.grantAccess("pods", "upload", {
      access: "Write",
      durationInSeconds: 600,
    });
    const blob = new PageBlobClient(accessSAS ?? "", new AnonymousCredential());
    const data = Buffer.alloc(4 << 20, "x");
    await blob.uploadPages(data, 8 << 20, data.length);
    await blob.uploadPages(Buffer.alloc(512, "f"), bytes, 512);
    const { pageRange } = await blob.getPageRanges(0);
    // What the SDK calls the count is the last byte less the first.
    assert.deepEqual(pageRange, [
      { offset: 8 << 20, count: (4 << 20) - 1 },
      { offset: bytes, count: 511 },
    ]);
    await assert.rejects(blob.uploadPages(Buffer.alloc(100), 0, 100), { statusCode: 416 });
    const source = `${endpoint.cloud.groupId("pods")}/providers/Microsoft.Compute/disks/upload`;
    const version = {
      location: "westeurope",
      storageProfile: { osDiskImage: { source: { id: source } } },
      publishingProfile: { targetRegions: [{ name: "westeurope" }] },
    };
    const publish = () => compute.galleryImageVersions.createOrUpdate("pods", "podvm", "empty", "1.0.0", version);
    assert.equal(await refusal(publish()), "400 BadRequest"); // still open
    await compute.disks.revokeAccess("pods", "upload");
    await assert.rejects(blob.getPageRanges(0), { statusCode: 403 });
    assert.equal((await publish()).provisioningState, "Succeeded");
    const made = await compute.virtualMachines.createOrUpdate("pods", "one", {
      ...plain(),
      storageProfile: {
        ...image("empty").storageProfile,
        osDisk: { createOption: "FromImage", deleteOption: "Delete" },
      },
    });
    assert.equal(made.storageProfile?.osDisk?.diskSizeGB, 1);
    assert.equal(
      await refusal(compute.galleryImages.delete("pods", "podvm", "empty").submitted()),
      "409 CannotDeleteResource",
    );
    await compute.virtualMachines.delete("pods", "one");
    await compute.galleryImageVersions.delete("pods", "podvm", "empty", "1.0.0");
    await compute.disks.delete("pods", "upload");
    assert.deepEqual(endpoint.cloud.leftovers(), []);
  });

  it("serves the serial console by a signed address", async () => {
    const diagnosticsProfile = { bootDiagnostics: { enabled: true } };
    await compute.virtualMachines.createOrUpdate("pods", "one", vm({ diagnosticsProfile }));
    const [machine] = endpoint.cloud.all("Microsoft.Compute/virtualMachines");
    if (machine !== undefined) machine.console = "booted\n";
    const { serialConsoleLogBlobUri } = await compute.virtualMachines.retrieveBootDiagnosticsData("pods", "one");
    const path = (serialConsoleLogBlobUri ?? "").slice(endpoint.url.length);
    const read = async (address: string): Promise<string> => {
      const reply = await endpoint.answer({ method: "GET", path: address, headers: {}, body: Buffer.alloc(0) });
      return `${reply?.status} ${reply?.status === 200 ? String(reply.body) : ""}`;
    };
    assert.equal(await read(path), "200 booted\n");
    assert.equal(await read(path.replace(/sig=./, "sig=_")), "403 ");
    await compute.virtualMachines.createOrUpdate("pods", "two", vm());
    assert.equal(await refusal(compute.virtualMachines.retrieveBootDiagnosticsData("pods", "two")), "400 BadRequest");
  });
});

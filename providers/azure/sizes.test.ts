import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ResourceSku } from "@azure/arm-compute";
import fc from "fast-check";
import { parseConfig } from "../../src/base/config.ts";
import type { Fault } from "../../src/base/fault.ts";
import { listCandidates } from "./candidates.ts";
import { AzureConfig } from "./config.ts";
import { byVersion, parseImageName } from "./image-name.ts";
import { isVmName, vmName } from "./names.ts";
import { cheapest } from "./prices.ts";
import { allowedSizes, fittingSizes, type SizeRequest, toVmSize, type VmSize } from "./sizes.ts";

const ID = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/g/providers";
const config = (change: Readonly<Record<string, unknown>> = {}): AzureConfig =>
  parseConfig(
    AzureConfig,
    {
      ...{ subscriptionId: "11111111-2222-3333-4444-555555555555", resourceGroup: "g", location: "westeurope" },
      ...{
        subnets: [`${ID}/Microsoft.Network/virtualNetworks/v/subnets/s`],
        image: "a:b:c:latest",
        tee: "none",
        ...change,
      },
    },
    "test",
  );

const size = (name: string, vcpus: number, memoryMiB: number, change: Partial<VmSize> = {}): VmSize => ({
  ...{ name, vcpus, memoryMiB, family: "f", gpus: 0, arch: "x64", tee: undefined, gen2: true, trustedLaunch: true },
  ...{ spot: true, premiumDisks: true, encryptionAtHost: true, maxNics: 2, maxDataDisks: 4, zones: ["1", "2"] },
  restricted: undefined,
  ...change,
});
const SIZES = [
  size("Standard_D2", 2, 8192),
  size("Standard_E2", 2, 16_384),
  size("Standard_F8", 8, 4096),
  size("Standard_F8s", 8, 2048),
  size("Standard_E4", 4, 16_384),
  size("Standard_N4", 4, 28_672, { gpus: 1 }),
  size("Standard_N8", 8, 57_344, { gpus: 4 }),
  size("Standard_C2", 2, 8192, { tee: "sev-snp" }),
];
const names = (request: SizeRequest, change: Readonly<Record<string, unknown>> = {}): readonly string[] =>
  fittingSizes(SIZES, request, config({ size: "Standard_D2", ...change })).map((s) => s.name);
const ask = (vcpus: number, memoryMiB: number, gpus = 0): SizeRequest => ({ vcpus, memoryMiB, gpus });

describe("the choice of a size", () => {
  it("takes the smallest that fits, by a look at all of them", () => {
    assert.equal(names(ask(8, 4096))[0], "Standard_F8"); // a binary search would miss it: W-17
    assert.equal(names(ask(2, 8192))[0], "Standard_D2");
    assert.equal(names(ask(3, 9000))[0], "Standard_E4");
  });

  it("honours a request for only vCPUs, or only memory", () => {
    assert.equal(names(ask(8, 0))[0], "Standard_F8s");
    assert.equal(names(ask(0, 9000))[0], "Standard_E2");
  });

  it("takes the configured one, and larger ones after it, for who asks for nothing", () => {
    assert.deepEqual(names(ask(0, 0)), ["Standard_D2", "Standard_E2", "Standard_E4"]);
  });

  it("counts GPUs, and gives none to who asks for none", () => {
    assert.equal(names(ask(2, 1024, 1))[0], "Standard_N4");
    assert.equal(names(ask(2, 1024, 2))[0], "Standard_N8");
    assert.ok(!names(ask(1, 1)).some((n) => n.startsWith("Standard_N")));
  });

  it("takes the one that is named, whatever its letters' case, and no other", () => {
    assert.deepEqual(names({ ...ask(64, 1), instanceType: "standard_e4" }), ["Standard_E4"]);
  });

  for (const [what, request, change, message] of [
    ["more than there is", ask(16, 0), {}, /no allowed x64 VM size in westeurope has 16 vCPUs and no GPU/],
    ["GPUs that nobody has", ask(1, 1, 64), {}, /64 GPUs/],
    ["a size that is not allowed", { ...ask(0, 0), instanceType: "Standard_X" }, {}, /"Standard_X" is not among those/],
    ["a confidential size without a tee", { ...ask(0, 0), instanceType: "Standard_C2" }, {}, /confidential VMs only/],
    [
      "a plain size with one",
      { ...ask(0, 0), instanceType: "Standard_D2" },
      { tee: "any" },
      /makes no confidential VMs/,
    ],
    ["another tee's", { ...ask(0, 0), instanceType: "Standard_C2" }, { tee: "tdx" }, /is for sev-snp/],
    [
      "too many interfaces",
      { ...ask(0, 0), instanceType: "Standard_D2" },
      { extraSubnets: config().subnets.concat(config().subnets) },
      /at most 2 network interfaces, 3/,
    ],
  ] as const) {
    it(`refuses ${what} by naming it`, () => {
      assert.throws(
        () => names(request, change),
        (e: Fault) => e.code === "invalid_argument" && message.test(e.message),
      );
    });
  }

  it("is the smallest of all that fit, whatever there is and is asked for", () => {
    const sizes = fc.array(
      fc.record({
        vcpus: fc.integer({ min: 1, max: 64 }),
        memoryMiB: fc.integer({ min: 512, max: 65_536 }),
        gpus: fc.integer({ min: 0, max: 4 }),
      }),
      { minLength: 1, maxLength: 30 },
    );
    const wanted = fc.record({
      vcpus: fc.integer({ min: 0, max: 64 }),
      memoryMiB: fc.integer({ min: 0, max: 65_536 }),
      gpus: fc.integer({ min: 0, max: 4 }),
    });
    fc.assert(
      fc.property(sizes, wanted, (all, request) => {
        fc.pre(request.vcpus + request.memoryMiB + request.gpus > 0);
        const there = all.map((s, i) => size(`S${i}`, s.vcpus, s.memoryMiB, { gpus: s.gpus }));
        const fits = (s: VmSize): boolean =>
          s.vcpus >= request.vcpus &&
          s.memoryMiB >= request.memoryMiB &&
          (request.gpus === 0 ? s.gpus === 0 : s.gpus >= request.gpus);
        const fitting = there.filter(fits);
        if (fitting.length === 0) {
          assert.throws(() => fittingSizes(there, request, config()));
          return;
        }
        const found = fittingSizes(there, request, config());
        assert.deepEqual(found.map((s) => s.name).sort(), fitting.map((s) => s.name).sort());
        const [first] = found;
        assert.ok(
          !fitting.some((s) => s.gpus < first.gpus || (s.gpus === first.gpus && s.memoryMiB < first.memoryMiB)),
        );
      }),
    );
  });
});

describe("Azure's list of sizes", () => {
  const sku: ResourceSku = {
    ...{ resourceType: "virtualMachines", name: "Standard_DC2as_v5", family: "standardDCASv5Family" },
    locationInfo: [{ location: "westeurope", zones: ["3", "1", "2"] }],
    capabilities: Object.entries({
      ...{
        vCPUs: "4",
        vCPUsAvailable: "2",
        MemoryGB: "7.5",
        GPUs: "1",
        MaxNetworkInterfaces: "2",
        MaxDataDiskCount: "4",
      },
      ...{ HyperVGenerations: "V2", ConfidentialComputingType: "SNP", LowPriorityCapable: "True", PremiumIO: "True" },
    }).map(([name, value]) => ({ name, value })),
    restrictions: [{ type: "Zone", restrictionInfo: { zones: ["2"] }, reasonCode: "NotAvailableForSubscription" }],
  };

  it("is read for what the choice goes by, without zones that the subscription may not use", () => {
    const read = toVmSize(sku);
    assert.deepEqual(read.zones, ["1", "3"]);
    assert.deepEqual(
      [read.vcpus, read.memoryMiB, read.gpus, read.tee, read.spot, read.gen2],
      [2, 7680, 1, "sev-snp", true, true],
    );
    assert.equal(read.restricted, undefined);
  });

  it("says what may not be used at all", () => {
    const restrictions: NonNullable<ResourceSku["restrictions"]> = [
      { type: "Location", reasonCode: "NotAvailableForSubscription" },
    ];
    const read = toVmSize({ ...sku, restrictions });
    assert.equal(read.restricted, "NotAvailableForSubscription");
    const named = { vcpus: 0, memoryMiB: 0, gpus: 0, instanceType: read.name };
    assert.throws(
      () => fittingSizes([read], named, config({ tee: "any", size: read.name })),
      /may not be used by this subscription/,
    );
  });

  it("is narrowed by patterns in any case", () => {
    const found = allowedSizes(SIZES, { size: "Standard_D2", sizes: ["standard_e*", "Standard_F8"] });
    assert.deepEqual(
      found.map((s) => s.name),
      ["Standard_D2", "Standard_E2", "Standard_F8", "Standard_E4"],
    );
  });
});

it("places are in wanted zones that a size has, spot ones only where it can be", () => {
  const all = listCandidates(
    [size("A", 1, 1, { zones: ["2"], spot: false }), size("B", 1, 1)],
    config({ zones: ["1", "2"], market: "spot-then-regular" }),
  );
  assert.deepEqual(
    all.map((c) => `${c.size.name}${c.zone}${c.market[0]}`),
    ["B1s", "B2s", "A2r", "B1r", "B2r"],
  );
});

it("names of VMs follow from the operation, and are Azure's", () => {
  const tags = { cluster: "c", owner: "kata-remote", createOperation: "op-1", created: "" } as const;
  const name = vmName("Podvm_Web-", tags, 0);
  assert.match(name, /^podvm-web-[0-9a-f]{16}$/);
  assert.equal(vmName("Podvm_Web-", tags, 0), name);
  const others = [
    vmName("podvm-web", tags, 1),
    vmName("podvm-web", { ...tags, cluster: "d" }, 0),
    vmName("podvm-web", { ...tags, createOperation: "op-2" }, 0),
  ];
  assert.equal(new Set([name, ...others]).size, 4);
  for (const n of [name, vmName("x".repeat(63), tags, 0), vmName("---", tags, 0)])
    assert.ok(isVmName(n) && n.length <= 64, n);
});

it("names of images are read, and the newest version is found by number", () => {
  const gallery = `${ID}/Microsoft.Compute/galleries/g1/images/i1`;
  assert.deepEqual(parseImageName(`${gallery}/versions/1.2.3`), {
    ...{ kind: "gallery", subscription: "11111111-2222-3333-4444-555555555555", group: "g", gallery: "g1" },
    ...{ image: "i1", version: "1.2.3" },
  });
  assert.deepEqual(parseImageName("/communitygalleries/c1/images/i1/versions/latest"), {
    ...{ kind: "community", gallery: "c1", image: "i1", version: undefined },
  });
  assert.deepEqual(parseImageName(`${ID}/Microsoft.Compute/images/m1`), { kind: "managed", group: "g", image: "m1" });
  assert.equal(parseImageName("a:b:c:1.0.0")?.kind, "marketplace");
  for (const wrong of ["a:b:c", "ami-1", `${gallery}/versions`, "a:b:c/d:latest", ""])
    assert.equal(parseImageName(wrong), undefined);
  assert.deepEqual(["1.9.0", "1.10.0", "1.2.30"].sort(byVersion), ["1.10.0", "1.9.0", "1.2.30"]);
});

it("prices are Linux's, and spot's only when wanted", () => {
  const item = (retailPrice: number, skuName: string, productName: string) => ({
    retailPrice,
    skuName,
    productName,
    unitOfMeasure: "1 Hour",
  });
  const items = [
    item(0.2, "DC2as v5", "Virtual Machines DCasv5 Series Windows"),
    item(0.1, "DC2as v5", "Virtual Machines DCasv5 Series"),
    ...[
      item(0.02, "DC2as v5 Spot", "Virtual Machines DCasv5 Series"),
      item(0.03, "DC2as v5 Low Priority", "Virtual Machines DCasv5 Series"),
    ],
  ];
  assert.deepEqual([cheapest(items, false), cheapest(items, true), cheapest([], true)], [0.1, 0.02, undefined]);
});

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import type { Finding } from "../../src/provider/index.ts";
import { AzureWorld, SEEDED } from "../../test/clouds/arm/index.ts";
import { allows } from "./verify-permissions.ts";

let world: AzureWorld;
beforeEach(async () => {
  world = await AzureWorld.open();
});
afterEach(() => world[Symbol.asyncDispose]());

async function verify(config: Readonly<Record<string, unknown>> = {}): Promise<readonly Finding[]> {
  return (await world.provider(config)).verify(background());
}
const bad = (findings: readonly Finding[]) => findings.filter((f) => f.state !== "ok");

describe("verify", () => {
  it("finds nothing wrong with an account that works, and makes nothing", async () => {
    const findings = await verify({ securityGroup: undefined });
    assert.deepEqual(
      bad(findings).map((f) => f.subject),
      ["security group"],
    ); // there is none to look at
    const subjects = new Set(findings.map((f) => f.subject));
    for (const subject of ["credentials", "permissions", "pod VM image", "VM sizes", "quota", "subnet podvms"]) {
      assert.ok(subjects.has(subject), subject);
    }
    assert.ok(world.endpoint.requests.every((r) => r.method === "GET"));
    assert.deepEqual(world.endpoint.cloud.leftovers(), []);
  });

  it("says which group lets TCP 15150 in, and that UDP 4789 is shut", async () => {
    const findings = await verify();
    assert.match(
      findings.find((f) => f.subject === "TCP 15150")?.detail ?? "",
      /podvm: rule in lets it in from VirtualNetwork/,
    );
    const [shut] = bad(findings);
    assert.deepEqual([shut?.subject, shut?.state], ["UDP 4789", "warning"]);
    assert.match(shut?.remedy ?? "", /az network nsg rule create --nsg-name podvm .+ --destination-port-ranges 4789/);
  });

  const wrong: readonly (readonly [string, Readonly<Record<string, unknown>>, string, RegExp])[] = [
    ["an image that is not there", { image: SEEDED.image("nothing") }, "pod VM image", /images\/nothing/],
    [
      "an image that cannot be confidential",
      { image: SEEDED.image("plain") },
      "pod VM image",
      /ConfidentialVmSupported/,
    ],
    ["a subnet that is not there", { subnets: [`${SEEDED.subnet}x`] }, "subnet podvmsx", /is not there/],
    ["a closed port", { securityGroup: SEEDED.closedSecurityGroup }, "TCP 15150", /rule deny keeps it out/],
    ["a group that is not there", { securityGroup: `${SEEDED.securityGroup}x` }, "security group", /is not there/],
    ["a size that makes no confidential VMs", { size: "Standard_D2s_v5" }, "VM sizes", /no confidential VMs/],
    ["a size that does not exist", { size: "Standard_X", sizes: [] }, "VM sizes", /Standard_X/],
    ["a resource group that is not there", { resourceGroup: "nothing" }, "resource group", /nothing/],
    [
      "zones that the size lacks",
      { size: "Standard_DC2es_v5", sizes: [], zones: ["2"], tee: "tdx" },
      "zones",
      /zone 2/,
    ],
  ];
  for (const [what, config, subject, detail] of wrong) {
    it(`names ${what} and a remedy`, async () => {
      const finding = (await verify(config)).find((f) => f.subject === subject && f.state === "error");
      assert.match(finding?.detail ?? "", detail);
      assert.ok((finding?.remedy ?? "").length > 10);
    });
  }

  it("names what the credentials may not do", async () => {
    world.endpoint.cloud.knobs.denied.add("Microsoft.Compute/virtualMachines/write");
    const finding = (await verify()).find((f) => f.subject === "permissions");
    assert.equal(finding?.state, "error");
    assert.match(finding?.detail ?? "", /Microsoft\.Compute\/virtualMachines\/write/);
  });

  for (const [action, subject] of [
    ["Microsoft.Compute/galleries/images/read", "pod VM image"],
    ["Microsoft.Compute/skus/read", "VM sizes"],
    ["Microsoft.Compute/locations/usages/read", "quota"],
    ["Microsoft.Network/virtualNetworks/subnets/read", "subnet podvms"],
    ["Microsoft.Network/networkSecurityGroups/read", "security group"],
  ] as const) {
    it(`says that ${action} lacks`, async () => {
      world.endpoint.cloud.knobs.denied.add(action);
      const finding = (await verify()).find((f) => f.subject === subject && f.state === "error");
      assert.match(finding?.detail ?? "", /AuthorizationFailed/);
      assert.match(finding?.remedy ?? "", /assign the role/);
    });
  }

  it("shows quotas with their numbers", async () => {
    world.endpoint.cloud.knobs.quota.set("standardDCASv5Family", 5);
    const few = (await verify()).find((f) => f.detail.startsWith("standardDCASv5Family"));
    assert.equal(few?.state, "warning");
    assert.match(few?.detail ?? "", /0 of 5 vCPUs are used, room for 2 VMs of Standard_DC2as_v5/);
    world.endpoint.cloud.knobs.quota.set("standardDCASv5Family", 1);
    assert.equal((await verify()).find((f) => f.detail.startsWith("standardDCASv5Family"))?.state, "error");
  });

  it("says when Azure cannot be reached", async () => {
    const errors = bad(await verify({ endpoint: "https://127.0.0.1:9", attempts: 1 }));
    assert.ok(errors.length >= 4);
    assert.ok(errors.filter((f) => f.state === "error").every((f) => f.remedy?.includes("NAT gateway")));
  });

  it("warns of what works and should be otherwise", async () => {
    const change = {
      ...{
        publicIp: true,
        bootDiagnostics: false,
        sizes: ["Standard_Z*"],
        subnets: [SEEDED.smallSubnet],
        rootDiskGiB: 1,
      },
      ...{ image: SEEDED.image("generalized"), securityGroup: undefined },
      identity: SEEDED.image("x").replace(
        /Microsoft\.Compute.*/,
        "Microsoft.ManagedIdentity/userAssignedIdentities/pods",
      ),
    };
    const warnings = bad(await verify(change));
    assert.deepEqual(warnings.map((f) => f.subject).sort(), [
      ...["VM sizes", "instance metadata", "pod VM image", "pod VM image", "public addresses", "security group"],
      ...["serial console", "subnet small"],
    ]);
    assert.ok(warnings.every((f) => f.state === "warning" && f.remedy !== undefined));
  });
});

it("a role's notActions take away of that role only", () => {
  const contributor = { actions: ["*"], notActions: ["Microsoft.Authorization/*/Write"] };
  assert.ok(allows(contributor, "Microsoft.Compute/virtualMachines/write"));
  assert.ok(!allows(contributor, "Microsoft.Authorization/roleAssignments/write"));
  assert.ok(allows({ actions: ["Microsoft.Compute/*/read"] }, "microsoft.compute/virtualmachines/READ"));
  assert.ok(!allows({ actions: ["Microsoft.Compute/*/read"] }, "Microsoft.Compute/virtualMachines/write"));
});

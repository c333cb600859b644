import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { background } from "../../src/base/call.ts";
import type { Finding } from "../../src/provider/index.ts";
import { AwsWorld } from "../../test/clouds/ec2/index.ts";

let world: AwsWorld;
beforeEach(async () => {
  world = await AwsWorld.open();
});
afterEach(() => world[Symbol.asyncDispose]());

async function verify(config: Readonly<Record<string, unknown>> = {}): Promise<readonly Finding[]> {
  return (await world.provider(config)).verify(background());
}
const bad = (findings: readonly Finding[]) => findings.filter((f) => f.state !== "ok");

describe("verify", () => {
  it("finds nothing wrong with an account that works, and makes nothing", async () => {
    const findings = await verify({ keyName: "operator" });
    assert.deepEqual(bad(findings), []);
    const subjects = findings.map((f) => f.subject);
    for (const subject of [
      "credentials",
      "pod VM image",
      "instance types",
      "TCP 15150",
      "launch instances",
      "end instances",
    ]) {
      assert.ok(subjects.includes(subject), subject);
    }
    assert.deepEqual(world.endpoint.account.leftovers(), []);
  });

  it("warns of zones that have no external subnet, and tells a price where it knows one", async () => {
    const findings = await verify({ externalSubnets: ["subnet-0a1b2c3d4e5f6000a"] });
    const finding = findings.find((f) => f.subject === "external subnets");
    assert.equal(finding?.state, "warning");
    assert.match(finding?.detail ?? "", /^eu-west-1b, eu-west-1c has none/);
    assert.doesNotMatch(findings.find((f) => f.subject === "instance types")?.detail ?? "", /USD/);
  });

  const wrong: readonly (readonly [string, Readonly<Record<string, unknown>>, string, RegExp])[] = [
    ["an image that is not there", { imageId: "ami-0a1b2c3d4e5f60077" }, "pod VM image", /ami-0a1b2c3d4e5f60077/],
    ["an image that cannot be confidential", { imageId: "ami-0a1b2c3d4e5f60004" }, "pod VM image", /UEFI/],
    ["a subnet that is not there", { subnets: ["subnet-0a1b2c3d4e5f60099"] }, "subnets", /subnet-0a1b2c3d4e5f60099/],
    ["a closed port", { securityGroups: ["sg-0a1b2c3d4e5f60002"] }, "TCP 15150", /no security group/],
    [
      "a group of another VPC",
      { securityGroups: ["sg-0a1b2c3d4e5f60003"] },
      "security groups",
      /vpc-0a1b2c3d4e5f60002/,
    ],
    ["a type without SEV-SNP", { instanceType: "m7i.large" }, "instance types", /no SEV-SNP/],
    ["a type that does not exist", { instanceType: "m99.large", instanceTypes: [] }, "instance types", /m99\.large/],
    [
      "a zone without a second interface",
      { externalSubnets: ["subnet-0a1b2c3d4e5f60099"] },
      "external subnets",
      /60099/,
    ],
    ["a key pair that is not there", { keyName: "nobody" }, "key pair", /nobody/],
    ["a launch template that is not there", { launchTemplate: { name: "nothing" } }, "launch template", /nothing/],
  ];
  for (const [what, config, subject, detail] of wrong) {
    it(`names ${what} and a remedy`, async () => {
      const finding = (await verify(config)).find((f) => f.subject === subject && f.state === "error");
      assert.match(finding?.detail ?? "", detail);
      assert.ok((finding?.remedy ?? "").length > 10);
    });
  }

  for (const [action, subject, state] of [
    ["RunInstances", "launch instances", "error"],
    ["CreateTags", "launch instances", "error"],
    ["DescribeInstances", "list instances", "error"],
    ["TerminateInstances", "end instances", "warning"],
    ["GetConsoleOutput", "read consoles", "warning"],
    ["DescribeImages", "pod VM image", "error"],
    ["DescribeSecurityGroups", "security groups", "error"],
  ] as const) {
    it(`names the permission ${action} when it lacks`, async () => {
      world.endpoint.account.knobs.denied.add(action);
      const finding = (await verify()).find((f) => f.subject === subject);
      assert.equal(finding?.state, state);
      assert.match(finding?.remedy ?? "", new RegExp(`ec2:${action}`));
    });
  }

  it("stops at credentials that there are not", async () => {
    const { AWS_ACCESS_KEY_ID } = process.env;
    delete process.env.AWS_ACCESS_KEY_ID;
    Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: "true" });
    try {
      const findings = await verify();
      assert.deepEqual(
        findings.map((f) => [f.subject, f.state]),
        [["credentials", "error"]],
      );
      assert.match(findings[0]?.remedy ?? "", /Pod Identity/);
      assert.equal(world.endpoint.count(), 0);
    } finally {
      Object.assign(process.env, { AWS_ACCESS_KEY_ID });
      delete process.env.AWS_EC2_METADATA_DISABLED;
    }
  });

  it("says when EC2 cannot be reached", async () => {
    const errors = bad(await verify({ endpoint: "http://127.0.0.1:9", attempts: 1 }));
    assert.ok(errors.length >= 6);
    assert.ok(errors.every((f) => f.remedy?.includes("NAT gateway")));
  });

  it("warns of what works and should be otherwise", async () => {
    world.endpoint.account.notOffered.add("m6a.large/eu-west-1c");
    world.endpoint.account.knobs.freeAddresses.set("subnet-0a1b2c3d4e5f6000a", 3);
    world.endpoint.account.groups.push({
      ...{ id: "sg-0a1b2c3d4e5f60009", vpcId: "vpc-0a1b2c3d4e5f60001" },
      ingress: [{ protocol: "tcp", from: 15000, to: 16000, cidr: "0.0.0.0/0" }],
    });
    world.endpoint.account.launchTemplates.push({
      id: "lt-0a1b2c3d4e5f60001",
      name: "kata",
      deleteOnTermination: false,
    });
    const change = {
      metadataHopLimit: 2,
      instanceTypes: ["x9.*"],
      securityGroups: ["sg-0a1b2c3d4e5f60009"],
      launchTemplate: { name: "kata" },
    };
    const warnings = bad(await verify(change));
    const subjects = [
      "TCP 15150",
      "instance metadata",
      "instance types",
      "launch template",
      "subnet subnet-0a1b2c3d4e5f6000a",
      "zones",
    ];
    assert.deepEqual(warnings.map((f) => f.subject).sort(), subjects);
    assert.ok(warnings.every((f) => f.state === "warning" && f.remedy !== undefined));
  });
});

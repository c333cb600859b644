import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { ArmEndpoint, ManualClock } from "./index.ts";

/** The VM that asks. */
const NAME = "asking";
const INSTANCE = "/metadata/instance";

describe("the metadata service of the ARM endpoint", () => {
  let endpoint: ArmEndpoint;
  let clock: ManualClock;
  let vmId: string;
  const userData = Buffer.from("#cloud-config\nwrite_files: []\n").toString("base64");

  before(async () => {
    clock = new ManualClock();
    endpoint = await ArmEndpoint.start({ clock });
    vmId = `${endpoint.cloud.groupId("pods")}/providers/Microsoft.Compute/virtualMachines/${NAME}`;
    // Guests of this host report to the fabric.
    endpoint.cloud.host = {
      guestsReport: true,
      launch: async () => undefined,
      stop: async () => undefined,
      start: async () => undefined,
      remove: async () => undefined,
    };
    assert.equal(await create(), 201);
  });
  after(() => endpoint[Symbol.asyncDispose]());

  async function create(): Promise<number | undefined> {
    const group = endpoint.cloud.groupId("pods");
    const subnet = { id: `${group}/providers/Microsoft.Network/virtualNetworks/pods-vnet/subnets/podvms` };
    const body = {
      ...{ location: "westeurope", zones: ["2"], tags: { a: "1", b: "2" } },
      properties: {
        ...{ hardwareProfile: { vmSize: "Standard_D2s_v5" }, userData },
        storageProfile: {
          imageReference: { publisher: "Canonical", offer: "ubuntu-24_04-lts", sku: "server", version: "latest" },
          osDisk: { createOption: "FromImage" },
        },
        osProfile: { adminUsername: "peerpod", adminPassword: "Aa1-Bb2-Cc3-Dd4" },
        networkProfile: {
          networkApiVersion: "2022-11-01",
          networkInterfaceConfigurations: [
            { name: "nic", properties: { ipConfigurations: [{ name: "ip", properties: { subnet } }] } },
          ],
        },
      },
    };
    const authorization = `Bearer ${endpoint.tenant.accessToken("https://management.azure.com")}`;
    const reply = await endpoint.answer({
      ...{ method: "PUT", path: `${vmId}?api-version=2024-07-01`, headers: { authorization, host: "h" } },
      body: Buffer.from(JSON.stringify(body)),
    });
    return reply?.status;
  }
  function ask(
    path: string,
    headers: Record<string, string> = { metadata: "true" },
    more: { readonly method?: string; readonly destination?: string; readonly body?: string } = {},
  ): { readonly status: number; readonly body: string } {
    const { method = "GET", destination, body = "" } = more;
    const request = { method, path, headers, body: Buffer.from(body), vmId, ...(destination && { destination }) };
    const reply = endpoint.metadata.answer(request);
    return { status: reply.status, body: String(reply.body) };
  }

  it("gives user data as text, and the whole document as JSON", () => {
    const text = ask(`${INSTANCE}/compute/userData?api-version=2021-01-01&format=text`);
    assert.deepEqual(text, { status: 200, body: userData });
    const document = JSON.parse(ask(`${INSTANCE}?api-version=2021-02-01`).body) as {
      compute: Record<string, unknown>;
      network: { interface: { ipv4: { ipAddress: { privateIpAddress: string }[] }; macAddress: string }[] };
    };
    assert.equal(document.compute.name, NAME);
    assert.equal(document.compute.vmSize, "Standard_D2s_v5");
    assert.equal(document.compute.zone, "2");
    assert.equal(document.compute.tags, "a:1;b:2");
    const [nic] = document.network.interface;
    assert.equal(nic?.ipv4.ipAddress[0]?.privateIpAddress, "10.0.0.4");
    assert.match(nic?.macAddress ?? "", /^000D3A[0-9A-F]{6}$/);
    assert.equal(ask(`${INSTANCE}/network?api-version=2021-02-01&format=text`).body, "interface/");
    // It came with that version.
    assert.equal(ask(`${INSTANCE}/compute/userData?api-version=2020-06-01&format=text`).status, 404);
  });

  it("refuses what did not come from a program in the VM itself, or says no version", () => {
    const path = `${INSTANCE}/compute/userData?api-version=2021-01-01&format=text`;
    assert.equal(ask(path, {}).status, 400);
    assert.equal(ask(path, { metadata: "true", "x-forwarded-for": "10.0.0.9" }).status, 400);
    assert.equal(ask(`${INSTANCE}/compute/userData?format=text`).status, 400);
    assert.equal(ask(`${INSTANCE}/compute/userData?api-version=2099-01-01&format=text`).status, 400);
    assert.equal(ask(`${INSTANCE}/compute/userData?api-version=2021-01-01`).status, 400);
    assert.equal(ask(path, { metadata: "true" }, { method: "PUT" }).status, 405);
    assert.equal(ask(`${INSTANCE}/compute/nothing?api-version=2021-01-01&format=text`).status, 404);
    assert.equal(ask("/latest/user-data").status, 404);
    assert.equal(ask("/metadata/scheduledevents?api-version=2020-07-01").body, '{"DocumentIncarnation":1,"Events":[]}');
  });

  it("gives no tokens to a VM that has no identity", () => {
    const token = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com";
    assert.match(ask(token).body, /Identity not found/);
  });

  it("waits for the guest's report, in the three steps of the agents, before a creation is over", () => {
    const fabric = (path: string, more: { method?: string; body?: string; version?: string } = {}) =>
      ask(
        path,
        { "x-ms-version": more.version ?? "2012-11-30" },
        { destination: "168.63.129.16", method: more.method ?? "GET", body: more.body ?? "" },
      );
    const state = (): string | undefined => {
      endpoint.cloud.settle();
      return endpoint.cloud.find("Microsoft.Compute/virtualMachines", vmId)?.state;
    };
    assert.equal(state(), "Creating");
    assert.equal(fabric("/machine?comp=goalstate", { version: "2011-01-01" }).status, 400);
    const goal = fabric("/machine/?comp=goalstate").body;
    const id = (name: string): string => new RegExp(`<${name}>(.*?)</${name}>`).exec(goal)?.[1] ?? "";
    const health = (instance: string, said: string): string =>
      `<Health><GoalStateIncarnation>1</GoalStateIncarnation><Container><ContainerId>${id("ContainerId")}</ContainerId><RoleInstanceList><Role><InstanceId>${instance}</InstanceId><Health><State>${said}</State></Health></Role></RoleInstanceList></Container></Health>`;
    const report = (body: string): number => fabric("/machine/?comp=health", { method: "POST", body }).status;
    assert.equal(report(health("_another", "Ready")), 410);
    assert.equal(report(health(id("InstanceId"), "NotReady")), 200);
    assert.equal(state(), "Creating");
    assert.equal(report(health(id("InstanceId"), "Ready")), 200);
    assert.equal(state(), "Succeeded");
  });

  it("gives up on a guest that never reports", async () => {
    vmId = vmId.replace(NAME, "silent");
    assert.equal(await create(), 201);
    clock.advance(40 * 60_000);
    endpoint.cloud.settle();
    const silent = endpoint.cloud.find("Microsoft.Compute/virtualMachines", vmId);
    assert.equal(silent?.state, "Failed");
    assert.equal(silent?.error?.code, "OSProvisioningTimedOut");
  });
});

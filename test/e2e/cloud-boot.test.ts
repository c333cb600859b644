import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { CONSOLE_LISTENING } from "../../src/guestwire/index.ts";
import { makeSelfSigned, newKeyPair } from "../../src/identity/index.ts";
import { renderUserData } from "../../src/userdata/index.ts";
import {
  freeNetwork,
  type Machine,
  MachineHost,
  type MetadataHandler,
  type MetadataRequest,
  type Platform,
} from "../clouds/machines/index.ts";
import { buildCloudDisk } from "./harness/images.ts";

const WIRE_SERVER = "168.63.129.16";
const TIMEOUT_MS = 240_000;
const NOT_FOUND = { status: 404 };
const GOAL_STATE = `<GoalState><Incarnation>7</Incarnation><Container><ContainerId>c-1</ContainerId><RoleInstanceList>
  <RoleInstance><InstanceId>i-1</InstanceId></RoleInstance></RoleInstanceList></Container></GoalState>`;

/**
 * The image as a cloud boots it: a disk with UEFI firmware and nothing else, on machines that look like the cloud's own,
 * with the cloud's metadata service. No provider and no adaptor takes part.
 */
describe("the disk image, booted by firmware", { timeout: 900_000 }, () => {
  let host: MachineHost;
  let subnet: string;
  let metadata: MetadataHandler;
  let asked: MetadataRequest[];
  let userData: Buffer;
  let count = 0;
  const disks: Partial<Record<Platform, string>> = {};

  before(async () => {
    disks.ec2 = join(await buildCloudDisk("raw"), "podvm.raw");
    disks.azure = join(await buildCloudDisk("vhd"), "podvm.vhd");
    userData = Buffer.from(renderUserData({ caPem: makeSelfSigned(newKeyPair().keyPem, "test CA") }));
    const cidr = await freeNetwork();
    subnet = cidr.split(".").slice(0, 2).join(".");
    host = await MachineHost.open({
      ...{ folder: mkdtempSync(join(tmpdir(), "cloud-boot-")), cidr, mtu: 9001 },
      subnets: [{ id: "s", cidr: `${subnet}.0.0/24` }],
      metadataAddresses: ["169.254.169.254", WIRE_SERVER],
      metadata: (request) => {
        asked.push(request);
        return metadata(request);
      },
    });
  });
  after(() => host[Symbol.asyncDispose]());
  beforeEach(() => {
    asked = [];
    metadata = () => NOT_FOUND;
  });

  async function launch(platform: Platform, sizeGiB: number): Promise<Machine & AsyncDisposable> {
    count += 1;
    const nic = { id: `nic-${count}`, address: `${subnet}.0.${10 + count}`, metadataHopLimit: 1 };
    const machine = await host.launch({
      ...{ id: `m-${count}`, platform, vcpus: 2, memoryMiB: 1024, nics: [nic] },
      disks: [{ id: `vol-${count}`, image: disks[platform], sizeGiB }],
    });
    return Object.assign(machine, { [Symbol.asyncDispose]: () => machine.remove() });
  }

  /** Waits for a line of the console. */
  async function says(machine: Machine, line: string, times = 1): Promise<string> {
    for (const end = Date.now() + TIMEOUT_MS; ; ) {
      const text = await machine.console();
      if (text.split(line).length > times) return text;
      if (Date.now() > end || machine.state === "stopped") assert.fail(`"${line}" is not on the console:\n${text}`);
      await delay(200);
    }
  }

  /** EC2's service, version 2. */
  const ec2 =
    (reply: () => Awaited<ReturnType<MetadataHandler>>): MetadataHandler =>
    ({ method, path, headers }) => {
      if (method === "PUT" && path === "/latest/api/token") return { status: 200, body: "a-token" };
      if (headers["x-aws-ec2-metadata-token"] !== "a-token") return { status: 401 };
      return path === "/latest/user-data" ? reply() : NOT_FOUND;
    };

  it("listens on EC2: NVMe, user-data with a token, a root as large as the volume; and serves no second start", async () => {
    let early = 2;
    metadata = ec2(() => {
      early -= 1;
      return early >= 0 ? { status: 503 } : { status: 200, body: userData };
    });
    await using machine = await launch("ec2", 4);
    await says(machine, CONSOLE_LISTENING);
    const text = await says(machine, '"disk has grown"');
    assert.match(text, /NVMe/, "firmware names the disk that it starts");
    const grown = /"disk has grown","fromMiB":(\d+),"toMiB":(\d+)/.exec(text);
    assert.ok(Number(grown?.[1]) < 1024 && Number(grown?.[2]) > 4000, grown?.[0]);
    assert.deepEqual(
      [...new Set(asked.map((a) => `${a.method} ${a.path}`))],
      ["PUT /latest/api/token", "GET /latest/user-data"],
    );

    await machine.stop();
    await machine.start();
    assert.equal((await machine.ended).how, "powered-off");
    assert.match(
      await machine.console(),
      /initrd: mounting \/dev\/nvme0n1p2 failed, switching off|started a second time/,
    );
    assert.equal((await machine.console()).split(CONSOLE_LISTENING).length, 2, "it listened once only");
  });

  it("says on EC2 that there is no user-data, and switches itself off", async () => {
    metadata = ec2(() => NOT_FOUND);
    await using machine = await launch("ec2", 1);
    assert.equal((await machine.ended).how, "powered-off");
    assert.match(await machine.console(), /no user-data from EC2: the instance was started without user-data/);
  });

  it("listens on Azure: SCSI, user-data in base64, and reports that it is ready", async () => {
    const ready = Promise.withResolvers<string>();
    metadata = ({ destination, method, path, headers, body }) => {
      if (destination === WIRE_SERVER) {
        if (headers["x-ms-version"] !== "2012-11-30") return { status: 400 };
        if (method === "GET") return { status: 200, body: GOAL_STATE };
        ready.resolve(body.toString());
        return { status: 200 };
      }
      if (headers.metadata !== "true") return { status: 400 };
      const wanted = path.startsWith("/metadata/instance/compute/userData?");
      return wanted ? { status: 200, body: userData.toString("base64") } : NOT_FOUND;
    };
    await using machine = await launch("azure", 2);
    await says(machine, CONSOLE_LISTENING);
    assert.match(await ready.promise, /<GoalStateIncarnation>7<.*<State>Ready<\/State>/);
    await says(machine, '"disk has grown"');
  });
});

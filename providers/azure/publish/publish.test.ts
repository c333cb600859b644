import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { background, type Call, withDeadline } from "../../../src/base/call.ts";
import { parseConfig } from "../../../src/base/config.ts";
import { silentLogger } from "../../../src/base/silent-log.ts";
import type { ImagePublisher, ImageToPublish, PublishProgress } from "../../../src/provider/index.ts";
import { AZURE_CONFIG, AzureWorld, installAzureSdk } from "../../../test/clouds/arm/index.ts";
import { deleteUntilGone } from "../test-support.ts";
import { PART_BYTES } from "./disk-parts.ts";
import { azurePublisher } from "./index.ts";

const sdk = await installAzureSdk();
const home = mkdtempSync(join(tmpdir(), "publish-azure-"));
after(() => rmSync(home, { recursive: true }));
const WRITTEN = [0, 3, 4, 6];
/** With the footer. */
const PARTS = WRITTEN.length + 1;

/** A VHD of 32 MiB with data here and there. */
function disk(parts: readonly number[] = WRITTEN, change?: (data: Buffer) => Buffer) {
  const data = Buffer.alloc(8 * PART_BYTES + 512);
  for (const index of parts) randomBytes(1000).copy(data, index * PART_BYTES + 7);
  data.write("conectix", 8 * PART_BYTES);
  data.writeUInt32BE(2, 8 * PART_BYTES + 60);
  const file = join(home, randomBytes(4).toString("hex"));
  const content = change?.(data) ?? data;
  writeFileSync(file, content);
  return { file, contentHash: createHash("sha256").update(content).digest("hex"), format: "vhd" } as const;
}

class World implements AsyncDisposable {
  readonly azure: AzureWorld;
  readonly #image: ImageToPublish;
  /** Pages that were written. */
  pages = 0;
  /** Writes from this on are not answered. */
  dropFrom = Number.POSITIVE_INFINITY;
  hold: Promise<unknown> = Promise.resolve();

  private constructor(azure: AzureWorld) {
    this.azure = azure;
    this.#image = { ...disk(), name: "podvm-1", arch: "x86_64", tee: "sev-snp", tags: { team: "a" } };
    const { blobs } = azure.endpoint;
    const answer = blobs.answer.bind(blobs);
    blobs.answer = async (request) => {
      if (request.method === "PUT") {
        if (this.pages >= this.dropFrom) return undefined as never; // closes the connection
        this.pages++;
        await this.hold;
      }
      return answer(request);
    };
  }

  static async open(): Promise<World> {
    return new World(await AzureWorld.open("missing" in sdk ? undefined : sdk.model));
  }

  image(change: Partial<ImageToPublish> = {}): ImageToPublish {
    return { ...this.#image, ...change };
  }

  async publisher(change: Readonly<Record<string, unknown>> = {}): Promise<ImagePublisher> {
    const { subscriptionId, resourceGroup, location } = AZURE_CONFIG;
    const config = {
      subscriptionId,
      resourceGroup,
      location,
      lookMs: 10,
      attempts: 2,
      ...this.azure.access,
      ...change,
    };
    const parsed = parseConfig(azurePublisher.configSchema, config, "test");
    return azurePublisher.open(parsed, { log: silentLogger(), now: () => new Date() });
  }

  async publish(change: Partial<ImageToPublish> = {}, call: Call = withDeadline(60_000)): Promise<string> {
    return (await (await this.publisher()).publish(this.image(change), call)).imageId;
  }

  count(action: string): number {
    return this.azure.endpoint.count(action);
  }

  leftovers(): readonly string[] {
    return this.azure.endpoint.cloud
      .leftovers()
      .map((l) => l.kind)
      .sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    assert.deepEqual(this.azure.endpoint.replyProblems, []);
    await this.azure[Symbol.asyncDispose]();
  }
}

const IMAGE = ["galleries", "images", "versions"];

describe("publishing to Azure", () => {
  it("gives an image that confidential VMs can be made of, from the parts that are not zero", async () => {
    await using world = await World.open();
    const steps: PublishProgress[] = [];
    const publisher = await world.publisher();
    const image = world.image();
    const { imageId, created } = await publisher.publish(image, withDeadline(60_000), (p) => steps.push(p));
    assert.equal(created, true);
    assert.match(imageId, /\/galleries\/kata_remote\/images\/podvm-confidential-x86_64\/versions\/\d{4}\.\d+\.\d+$/);
    assert.equal(world.pages, PARTS);
    const version = world.azure.endpoint.cloud.find("Microsoft.Compute/galleries/images/versions", imageId);
    const stored = readFileSync(version?.content?.file ?? "");
    assert.ok(stored.equals(readFileSync(image.file)));
    const last = steps.findLast((s) => s.step === "uploading");
    assert.equal(last?.doneBytes, WRITTEN.length * PART_BYTES + 512);
    assert.equal(last?.totalBytes, last?.doneBytes);
    assert.deepEqual(world.leftovers(), IMAGE); // the disk that it was made of is gone
    const provider = await world.azure.provider({ image: imageId.replace(/\/versions\/.*/, "") });
    const { id } = await provider.createInstance(world.azure.spec(), background());
    assert.equal(world.azure.endpoint.cloud.all("Microsoft.Compute/virtualMachines").length, 1);
    await deleteUntilGone(provider, id);
  });

  it("puts owner, content and the operator's tags on the version", async () => {
    await using world = await World.open();
    const imageId = await world.publish();
    const version = world.azure.endpoint.cloud.find("Microsoft.Compute/galleries/images/versions", imageId);
    assert.deepEqual(Object.fromEntries(version?.tags ?? []), {
      ...{ Name: "podvm-1", team: "a", "kata-remote:owner": "kata-remote", "kata-remote:tee": "sev-snp" },
      "kata-remote:content": world.image().contentHash,
    });
  });

  it("gives the image that is there when the same is published again", async () => {
    await using world = await World.open();
    const imageId = await world.publish();
    const publisher = await world.publisher();
    assert.deepEqual(await publisher.publish(world.image(), withDeadline(60_000)), { imageId, created: false });
    assert.equal(world.count("Disks_CreateOrUpdate"), 1);
  });

  it("refuses a name that another content has, and makes nothing", async () => {
    await using world = await World.open();
    await world.publish();
    await assert.rejects(world.publish(disk([1])), { code: "already_exists", message: /choose another name/ });
    assert.deepEqual(world.leftovers(), IMAGE);
  });

  it("publishes a newer version of the same image under another name", async () => {
    await using world = await World.open();
    const first = await world.publish();
    await delay(1100); // versions are told apart by the second
    const second = await world.publish({ ...disk([2]), name: "podvm-2" });
    assert.notEqual(second, first);
    const [a = "", b = ""] = [first, second].map((id) => id.replace(/\/versions\/.*/, ""));
    assert.equal(a, b);
    assert.deepEqual(world.leftovers(), [...IMAGE, "versions"]);
  });

  for (const [arch, tee, expected] of [
    ["x86_64", "none", ["Specialized", "x64", "TrustedLaunchSupported"]],
    ["arm64", "none", ["Specialized", "Arm64", undefined]],
    ["x86_64", "tdx", ["Specialized", "x64", "ConfidentialVMSupported"]],
  ] as const) {
    it(`makes an image definition that is right for ${tee} on ${arch}`, async () => {
      await using world = await World.open();
      const imageId = await world.publish({ arch, tee });
      const id = imageId.replace(/\/versions\/.*/, "");
      const { facts } = world.azure.endpoint.cloud.need("Microsoft.Compute/galleries/images", id);
      assert.deepEqual([facts.osState, facts.arch, facts.securityType], expected);
      assert.equal(facts.generation, "V2");
    });
  }

  it("refuses what Azure does not take, and a definition of another kind", async () => {
    await using world = await World.open();
    await assert.rejects(world.publish({ format: "raw" }), { code: "invalid_argument", message: /--format vhd/ });
    const short = disk(WRITTEN, (d) => Buffer.concat([d.subarray(0, PART_BYTES - 512), d.subarray(-512)]));
    await assert.rejects(world.publish(short), { code: "invalid_argument", message: /whole MiB/ });
    const none = disk(WRITTEN, (d) => d.subarray(0, 2 * PART_BYTES));
    await assert.rejects(world.publish(none), { code: "invalid_argument", message: /no VHD of fixed size/ });
    assert.deepEqual(world.leftovers(), []);
    await (await world.publisher({ definition: "mine" })).publish(world.image(), withDeadline(60_000));
    const other = await world.publisher({ definition: "mine", osState: "generalised" });
    await assert.rejects(other.publish(world.image({ name: "podvm-2" }), withDeadline(60_000)), {
      ...{ code: "failed_precondition", message: /of another kind \(osState\)/ },
    });
  });

  it("waits for what takes its time", async () => {
    await using world = await World.open();
    Object.assign(world.azure.endpoint.cloud.knobs, { diskMs: 60, imageMs: 120, retryAfterS: 0 });
    await world.publish();
    assert.ok(world.count("GalleryImageVersions_Get") > 3);
    assert.deepEqual(world.leftovers(), IMAGE);
  });
});

describe("an upload that is interrupted", () => {
  it("is gone on with by the next call after the network failed", async () => {
    await using world = await World.open();
    const publisher = await world.publisher({ uploads: 1 });
    world.dropFrom = 3;
    await assert.rejects(publisher.publish(world.image(), withDeadline(60_000)), { code: "unavailable" });
    assert.deepEqual(world.leftovers(), ["disks", "galleries", "images"]);
    world.dropFrom = Number.POSITIVE_INFINITY;
    const before = world.pages;
    const other = await world.publisher(); // another process, perhaps on another machine
    const { imageId, created } = await other.publish(world.image(), withDeadline(60_000));
    assert.equal(created, true);
    assert.equal(world.pages - before, PARTS - 3);
    const version = world.azure.endpoint.cloud.find("Microsoft.Compute/galleries/images/versions", imageId);
    assert.ok(readFileSync(version?.content?.file ?? "").equals(readFileSync(world.image().file)));
  });

  it("is the same when answers are lost", async () => {
    await using world = await World.open();
    for (const action of [
      "Disks_CreateOrUpdate",
      "Disks_RevokeAccess",
      "GalleryImages_CreateOrUpdate",
      "Disks_Delete",
    ]) {
      world.azure.endpoint.inject({ action, afterEffect: true, drop: true });
    }
    await world.publish();
    assert.deepEqual(world.leftovers(), IMAGE);
  });

  it("leaves nothing behind when it is cancelled", async () => {
    await using world = await World.open();
    const held = Promise.withResolvers<void>();
    world.hold = held.promise;
    const controller = new AbortController();
    const publishing = world.publish({}, controller);
    publishing.catch(() => undefined);
    while (world.pages < 2) await delay(5);
    controller.abort();
    await assert.rejects(publishing, { code: "cancelled" });
    held.resolve();
    assert.deepEqual(world.leftovers(), []);
  });

  it("leaves nothing behind when the credentials lack a permission", async () => {
    await using world = await World.open();
    world.azure.endpoint.cloud.knobs.denied.add("Microsoft.Compute/galleries/images/versions/write");
    await assert.rejects(world.publish(), { code: "permission_denied", message: /providers\/azure\/README\.md/ });
    assert.deepEqual(world.leftovers(), []);
  });
});

describe("unpublishing from Azure", () => {
  it("removes the version, and what was made for it alone, and does not mind that they are gone", async () => {
    await using world = await World.open();
    const imageId = await world.publish();
    const publisher = await world.publisher();
    await publisher.unpublish(imageId, withDeadline(10_000));
    assert.deepEqual(world.leftovers(), []);
    await publisher.unpublish(imageId, withDeadline(10_000));
  });

  it("does not touch an image that somebody else made, nor another gallery", async () => {
    await using world = await World.open();
    const imageId = await world.publish();
    const publisher = await world.publisher();
    world.azure.endpoint.cloud
      .find("Microsoft.Compute/galleries/images/versions", imageId)
      ?.tags?.delete("kata-remote:owner");
    await assert.rejects(publisher.unpublish(imageId, withDeadline(10_000)), { code: "failed_precondition" });
    const foreign = imageId.replace("kata_remote", "podvm");
    await assert.rejects(publisher.unpublish(foreign, withDeadline(10_000)), { code: "invalid_argument" });
    assert.deepEqual(world.leftovers(), IMAGE);
  });
});

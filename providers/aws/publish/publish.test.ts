import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type Call, withDeadline } from "../../../src/base/call.ts";
import { parseConfig } from "../../../src/base/config.ts";
import { silentLogger } from "../../../src/base/silent-log.ts";
import type { ImagePublisher, ImageToPublish, PublishProgress } from "../../../src/provider/index.ts";
import { Ec2Endpoint, installBoto, TEST_CREDENTIALS } from "../../../test/clouds/ec2/index.ts";
import { BLOCK_BYTES } from "./disk-blocks.ts";
import { awsPublisher } from "./index.ts";

process.env.AWS_ACCESS_KEY_ID = TEST_CREDENTIALS.accessKeyId;
process.env.AWS_SECRET_ACCESS_KEY = TEST_CREDENTIALS.secretAccessKey;

/** botocore's descriptions of both services: every request here has to pass them. */
const boto = await installBoto();
const noBoto = "missing" in boto ? boto.missing : false;
const models = "missing" in boto ? {} : { model: boto.model, ebsModel: boto.ebsModel };

const home = mkdtempSync(join(tmpdir(), "publish-"));
after(() => rmSync(home, { recursive: true }));
const WRITTEN = [0, 3, 4, 9, 70, 71, 72, 150];

/** A disk of 100 MiB with data here and there, and its last block cut short. */
function disk(blocks: readonly number[] = WRITTEN): Pick<ImageToPublish, "file" | "contentHash" | "format"> {
  const data = Buffer.alloc(200 * BLOCK_BYTES - 1024);
  for (const index of blocks) randomBytes(1000).copy(data, index * BLOCK_BYTES + 7);
  const file = join(home, randomBytes(4).toString("hex"));
  writeFileSync(file, data);
  return { file, contentHash: createHash("sha256").update(data).digest("hex"), format: "raw" };
}

class World implements AsyncDisposable {
  readonly endpoint: Ec2Endpoint;
  readonly #open: ImagePublisher[] = [];
  readonly #image: ImageToPublish;

  private constructor(endpoint: Ec2Endpoint) {
    this.endpoint = endpoint;
    this.#image = { ...disk(), name: "podvm-1", arch: "x86_64", tee: "sev-snp", tags: { team: "a" } };
  }

  static async open(): Promise<World> {
    return new World(await Ec2Endpoint.start(models));
  }

  image(change: Partial<ImageToPublish> = {}): ImageToPublish {
    return { ...this.#image, ...change };
  }

  async publisher(change: Readonly<Record<string, unknown>> = {}): Promise<ImagePublisher> {
    const config = { region: "eu-west-1", endpoint: this.endpoint.url, pollMs: 10, attempts: 2, ...change };
    const parsed = parseConfig(awsPublisher.configSchema, config, "test");
    const publisher = await awsPublisher.open(parsed, { log: silentLogger(), now: () => new Date() });
    this.#open.push(publisher);
    return publisher;
  }

  async publish(change: Partial<ImageToPublish> = {}, call: Call = withDeadline(60_000)): Promise<string> {
    return (await (await this.publisher()).publish(this.image(change), call)).imageId;
  }

  count(action: string): number {
    return this.endpoint.requests.filter((r) => r.action === action).length;
  }

  get snapshots(): readonly { readonly id: string; readonly state: string }[] {
    return [...this.endpoint.account.snapshots.all.values()];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const publisher of this.#open) await publisher.close();
    await this.endpoint[Symbol.asyncDispose]();
    assert.deepEqual(this.endpoint.replyProblems, []);
  }
}

describe("publishing to AWS", () => {
  it("gives an image that VMs can be made of, from the blocks that are not zero", async () => {
    await using world = await World.open();
    const steps: PublishProgress[] = [];
    const publisher = await world.publisher();
    const image = world.image();
    const { imageId, created } = await publisher.publish(image, withDeadline(60_000), (p) => steps.push(p));
    assert.equal(created, true);
    assert.equal(world.count("PutSnapshotBlock"), WRITTEN.length);
    const made = world.endpoint.account.images.find((i) => i.id === imageId);
    assert.deepEqual(
      [made?.name, made?.arch, made?.bootMode, made?.tpm, made?.state],
      ["podvm-1", "x86_64", "uefi", true, "available"],
    );
    const [root] = made?.devices ?? [];
    assert.deepEqual([root?.device, root?.sizeGiB, root?.deleteOnTermination], ["/dev/xvda", 10, true]);
    const path = await world.endpoint.account.snapshots.file(root?.snapshotId ?? "");
    const stored = readFileSync(path ?? "");
    assert.ok(stored.subarray(0, 200 * BLOCK_BYTES - 1024).equals(readFileSync(image.file)));
    const last = steps.findLast((s) => s.step === "uploading");
    assert.equal(last?.doneBytes, WRITTEN.length * BLOCK_BYTES);
    assert.equal(last?.totalBytes, last?.doneBytes);
  });

  it("puts the owner, the content and the operator's tags on image and snapshot", async () => {
    await using world = await World.open();
    const imageId = await world.publish();
    const { account } = world.endpoint;
    const expected = {
      ...{ Name: "podvm-1", team: "a", "kata-remote:owner": "kata-remote", "kata-remote:tee": "sev-snp" },
      "kata-remote:content": world.image().contentHash,
    };
    assert.deepEqual(Object.fromEntries(account.otherTags.get(imageId) ?? []), expected);
    const [snapshot] = account.snapshots.all.values();
    const { "kata-remote:uploaded-blocks": _, ...tags } = Object.fromEntries(snapshot?.tags ?? []);
    assert.deepEqual(tags, expected);
  });

  it("gives the image that is there when the same is published again", async () => {
    await using world = await World.open();
    const imageId = await world.publish();
    const publisher = await world.publisher();
    assert.deepEqual(await publisher.publish(world.image(), withDeadline(60_000)), { imageId, created: false });
    assert.equal(world.count("StartSnapshot"), 1);
  });

  it("registers a snapshot that is there under another name", async () => {
    await using world = await World.open();
    const first = await world.publish();
    const second = await world.publish({ name: "podvm-2" });
    assert.notEqual(second, first);
    assert.equal(world.count("StartSnapshot"), 1);
  });

  it("refuses a name that another content has, and makes nothing", async () => {
    await using world = await World.open();
    await world.publish();
    await assert.rejects(world.publish(disk([1])), { code: "already_exists", message: /choose another name/ });
    assert.equal(world.snapshots.length, 1);
  });

  it("publishes an image for arm64 without a TPM", async () => {
    await using world = await World.open();
    const imageId = await world.publish({ arch: "arm64", tee: "none" });
    const made = world.endpoint.account.images.find((i) => i.id === imageId);
    assert.deepEqual([made?.arch, made?.bootMode, made?.tpm], ["arm64", "uefi", false]);
  });

  it("waits for a snapshot that takes its time", async () => {
    await using world = await World.open();
    world.endpoint.account.knobs.snapshotMs = 3_600_000;
    const publishing = world.publish();
    while (world.count("DescribeSnapshots") < 5) await delay(5);
    assert.equal(world.count("RegisterImage"), 0);
    for (const snapshot of world.endpoint.account.snapshots.all.values()) snapshot.completedAt = 0;
    await publishing;
  });

  it("says what became of a snapshot that fails, and removes it", async () => {
    await using world = await World.open();
    world.endpoint.account.knobs.snapshotMs = 3_600_000;
    const failed = assert.rejects(world.publish(), { message: /snapshot snap-\w+ has failed/ });
    while (world.count("CompleteSnapshot") === 0) await delay(5);
    for (const snapshot of world.endpoint.account.snapshots.all.values()) snapshot.state = "error";
    await failed;
    assert.deepEqual(world.endpoint.account.leftovers(), []);
  });
});

describe("an upload that is interrupted", () => {
  it("is gone on with by the next call after the network failed", async () => {
    await using world = await World.open();
    const many = world.image(disk(Array.from({ length: 190 }, (_, i) => i)));
    // From the 131st block on nothing is answered.
    world.endpoint.inject({ action: "PutSnapshotBlock", skip: 130, times: 4, drop: true });
    const publisher = await world.publisher({ uploads: 1 });
    const failed = publisher.publish(many, withDeadline(60_000));
    await assert.rejects(failed, { code: "unavailable" });
    assert.deepEqual(
      world.snapshots.map((s) => s.state),
      ["pending"],
    );
    world.endpoint.requests.splice(0);
    // Another process, perhaps on another machine; two of the four are still to come.
    const other = await world.publisher({ attempts: 5 });
    const { imageId, created } = await other.publish(many, withDeadline(60_000));
    assert.equal(created, true);
    assert.equal(world.snapshots.length, 1);
    // 128 of them had been noted down.
    const sent = world.endpoint.requests.filter((r) => r.action === "PutSnapshotBlock" && r.outcome === undefined);
    assert.equal(sent.length, 190 - 128);
    const [root] = world.endpoint.account.images.find((i) => i.id === imageId)?.devices ?? [];
    const path = await world.endpoint.account.snapshots.file(root?.snapshotId ?? "");
    const expected = readFileSync(many.file);
    assert.ok(
      readFileSync(path ?? "")
        .subarray(0, expected.length)
        .equals(expected),
    );
  });

  it("repeats what is throttled", async () => {
    await using world = await World.open();
    const error = { code: "RequestThrottledException", message: "slow down", status: 400 };
    world.endpoint.inject({ action: "PutSnapshotBlock", skip: 2, error });
    world.endpoint.inject({ action: "RegisterImage", error: { ...error, code: "RequestLimitExceeded" } });
    await world.publish();
    assert.equal(world.count("PutSnapshotBlock"), WRITTEN.length + 1);
  });

  it("is the same when the answers of what has no token are lost", async () => {
    await using world = await World.open();
    for (const action of ["StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "RegisterImage"]) {
      world.endpoint.inject({ action, afterEffect: true, drop: true });
    }
    world.endpoint.account.knobs.snapshotMs = 100;
    const imageId = await world.publish();
    assert.deepEqual(
      world.endpoint.account.leftovers().map(({ kind }) => kind),
      ["snapshot", "image"],
    );
    assert.ok(world.endpoint.account.images.some((i) => i.id === imageId));
  });

  it("leaves nothing behind when it is cancelled", async () => {
    await using world = await World.open();
    world.endpoint.inject({ action: "PutSnapshotBlock", skip: 3, times: 100, delayMs: 5000 });
    const controller = new AbortController();
    const publishing = world.publish({}, controller);
    while (world.count("PutSnapshotBlock") < 4) await delay(5);
    controller.abort();
    await assert.rejects(publishing, { code: "cancelled" });
    assert.deepEqual(world.endpoint.account.leftovers(), []);
  });

  it("leaves nothing behind when the credentials lack a permission", async () => {
    await using world = await World.open();
    world.endpoint.account.knobs.denied.add("CompleteSnapshot");
    await assert.rejects(world.publish(), { code: "permission_denied", message: /providers\/aws\/README\.md/ });
    assert.deepEqual(world.endpoint.account.leftovers(), []);
  });
});

describe("unpublishing from AWS", () => {
  it("removes image and snapshot, and does not mind that they are gone", async () => {
    await using world = await World.open();
    const imageId = await world.publish();
    const publisher = await world.publisher();
    await publisher.unpublish(imageId, withDeadline(10_000));
    assert.deepEqual(world.endpoint.account.leftovers(), []);
    await publisher.unpublish(imageId, withDeadline(10_000));
  });

  it("keeps a snapshot that another image has", async () => {
    await using world = await World.open();
    const first = await world.publish();
    const second = await world.publish({ name: "podvm-2" });
    const publisher = await world.publisher();
    await publisher.unpublish(first, withDeadline(10_000));
    assert.equal(world.snapshots.length, 1);
    await publisher.unpublish(second, withDeadline(10_000));
    assert.deepEqual(world.endpoint.account.leftovers(), []);
  });

  it("does not touch an image that somebody else made", async () => {
    await using world = await World.open();
    const publisher = await world.publisher();
    const [foreign] = world.endpoint.account.images;
    await assert.rejects(publisher.unpublish(foreign?.id ?? "", withDeadline(10_000)), { code: "failed_precondition" });
    assert.ok(world.endpoint.account.images.some((i) => i.id === foreign?.id));
  });
});

it("publishing sends what the services' published descriptions allow", { skip: noBoto }, async () => {
  await using world = await World.open();
  await world.publish();
  assert.deepEqual([...new Set(world.endpoint.requests.map((r) => r.outcome))], [undefined]);
});

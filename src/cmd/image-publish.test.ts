import assert from "node:assert/strict";
import { type ExecFileException, execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Ec2Endpoint, TEST_CREDENTIALS } from "../../test/clouds/ec2/index.ts";

const home = mkdtempSync(join(tmpdir(), "image-publish-"));
const dir = join(home, "disks");
const config = join(home, "adaptor.toml");
const disk = Buffer.alloc(1 << 20, 7);

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** `kata-remote image …` as a user runs it. */
function image(...args: readonly string[]): Promise<Ended> {
  const env = {
    ...process.env,
    AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretAccessKey,
  };
  const command = [join(import.meta.dirname, "kata-remote.ts"), "image", ...args];
  return new Promise((resolve) => {
    execFile(process.execPath, command, { env }, (error: ExecFileException | null, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    );
  });
}

describe("kata-remote image publish", { timeout: 300_000 }, () => {
  let endpoint: Ec2Endpoint;
  before(async () => {
    endpoint = await Ec2Endpoint.start();
    mkdirSync(dir);
    writeFileSync(join(dir, "podvm.raw"), disk);
    const sha256 = createHash("sha256").update(disk).digest("hex");
    const manifest = { inputHash: "x", arch: "x64", disks: { raw: { file: "podvm.raw", sha256 } } };
    writeFileSync(join(dir, "disks.json"), JSON.stringify(manifest));
    const table = `[providers.aws]\nregion = "eu-west-1"\nendpoint = "${endpoint.url}"\nsubnets = ["subnet-0a1b2c3d"]`;
    writeFileSync(config, `provider = "aws"\n${table}\ntags = { team = "a" }\n`);
  });
  after(async () => {
    await endpoint[Symbol.asyncDispose]();
    rmSync(home, { recursive: true });
  });

  it("publishes the directory's disk where the adaptor's configuration says, once, and removes it again", async () => {
    const first = await image("publish", "aws", "--dir", dir, "--config", config, "--tag", "stage=test", "--json");
    assert.equal(first.code, 0, first.err);
    const { imageId, created, name } = JSON.parse(first.out) as Record<string, unknown>;
    assert.equal(created, true);
    assert.match(String(name), /^kata-remote-[\d.]+-[0-9a-f]{12}$/);
    assert.match(first.err, /uploading 100%/);
    const { tags } = { tags: Object.fromEntries(endpoint.account.otherTags.get(String(imageId)) ?? []) };
    assert.deepEqual([tags.team, tags.stage, tags["kata-remote:tee"]], ["a", "test", "sev-snp"]);

    const again = await image("publish", "aws", "--file", join(dir, "podvm.raw"), "--config", config);
    assert.deepEqual([again.code, again.out], [0, `${imageId}\n`], again.err);

    const removed = await image("unpublish", "aws", String(imageId), "--config", config);
    assert.equal(removed.code, 0, removed.err);
    assert.deepEqual(endpoint.account.leftovers(), []);
  });

  const refused: readonly [string, readonly string[], RegExp][] = [
    ["a setting that there is not", ["aws", "--set", "regoin=eu-west-1"], /unknown key "regoin"/],
    ["a setting without a value", ["aws", "--set", "region"], /--set: "region" is not key=value/],
    ["a directory without disks", ["aws", "--dir", home, "--set", "region=eu-west-1"], /image build --format raw/],
    ["a disk of another format", ["aws", "--file", "x.vhd", "--set", "region=eu-west-1"], /must end in \.raw/],
    ["another kind of VM", ["aws", "--dir", dir, "--tee", "sgx", "--config", config], /--tee: "sgx" is not one of/],
    ["a name that no cloud takes", ["aws", "--dir", dir, "--name", "a b", "--config", config], /--name: "a b"/],
    ["a provider without images to publish", ["local"], /takes images from files/],
  ];
  for (const [what, args, message] of refused) {
    it(`refuses ${what}`, async () => {
      const ended = await image("publish", ...args);
      assert.equal(ended.code, 1, ended.err);
      assert.match(ended.err, message);
    });
  }

  it("builds nothing that is to be signed by halves, or in a format that there is not", async () => {
    const half = await image("build", "--format", "raw", "--sign-key", "k.pem", "--out", dir);
    assert.match(half.err, /--sign-key, --sign-cert and --format go together/);
    const format = await image("build", "--format", "iso", "--out", dir);
    assert.match(format.err, /"iso" is not one of raw, qcow2, vhd/);
    assert.deepEqual([half.code, format.code], [1, 1]);
  });
});

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { serveImages } from "../../../test/fakes/containerd-images.ts";
import { background } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { silentLogger } from "../../base/log.ts";
import { SetImageSettingsRequest, SetImageSettingsResponse } from "../../gen/kataremote/guest/v1/guest.ts";
import { guestRootStorage } from "./guest-root.ts";
import type { ImagesConfig } from "./images-config.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;
const ID = `sha256:${"b".repeat(64)}`;

describe("a root file system that the guest pulls", () => {
  let dir: string;
  let address: string;
  let server: AsyncDisposable;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "images-"));
    address = join(dir, "c.sock");
    const images = new Map([
      ["r.io/app:1", DIGEST],
      [ID, DIGEST],
      ["r.io/lonely:1", "other"],
    ]);
    server = await serveImages(address, images);
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  const config: ImagesConfig = { registries: {}, nameservers: [], stallMs: 1000, attempts: 2, pullTimeoutMs: 3000 };
  async function storageOf(
    image: string,
    change: Partial<ImagesConfig> = {},
    secrets: () => Promise<string | undefined> = async () => undefined,
  ) {
    const told: unknown[] = [];
    const caller = {
      call: async (_service: string, method: string, payload: Uint8Array) => {
        assert.equal(method, "SetImageSettings");
        told.push(JSON.parse(SetImageSettingsRequest.decode(payload).settingsJson));
        return SetImageSettingsResponse.encode({}).finish();
      },
    };
    const storage = await guestRootStorage(
      {
        ...{ caller, config: { ...config, ...change }, containerd: { address, namespace: "k8s.io" } },
        ...{ pullSecrets: secrets, log: silentLogger() },
      },
      { containerId: "c", image, mountPoint: "/run/kata-containers/c/rootfs", annotations: { a: "b" } },
      background(),
    );
    return { storage, told };
  }

  it("is what containerd found its name to mean", async () => {
    const { storage } = await storageOf("r.io/app:1");
    assert.deepEqual([storage.driver, storage.source, storage.fstype], ["image_guest_pull", "r.io/app:1", "overlay"]);
    assert.deepEqual(storage.driverOptions, [
      'image_guest_pull={"metadata":{"a":"b"}}',
      `kata-remote.digest=${DIGEST}`,
    ]);
    assert.deepEqual((await storageOf(ID)).storage.source, "r.io/app:1", "an id is no name");
    const unknown = await storageOf("r.io/new:1");
    assert.deepEqual([unknown.storage.source, unknown.storage.driverOptions.length], ["r.io/new:1", 1]);
    await assert.rejects(storageOf(`sha256:${"c".repeat(64)}`), /by no name that the pod VM could pull/);
  });

  it("of the pod itself needs no registry", async () => {
    const { storage, told } = await storageOf("pause");
    assert.deepEqual([storage.source, told], ["pause", []]);
  });

  it("comes with the node's logins and CAs and the pod's own pull secrets", async () => {
    const [authFile, caFile] = [join(dir, "auth.json"), join(dir, "ca.pem")];
    await writeFile(authFile, JSON.stringify({ auths: { "a.io": { auth: "1" }, "b.io": { auth: "1" } } }));
    await writeFile(caFile, "-----BEGIN CERTIFICATE-----");
    const registries = { "a.io": { caFile, mirrors: ["https://m"] } };
    const pod = async () => JSON.stringify({ auths: { "b.io": { auth: "2" } } });
    const { told } = await storageOf("r.io/app:1", { authFile, caFile, registries }, pod);
    assert.deepEqual(told, [
      {
        auths: { "a.io": { auth: "1" }, "b.io": { auth: "2" } },
        registries: { "a.io": { mirrors: ["https://m"], caPem: "-----BEGIN CERTIFICATE-----" } },
        ...{ caPem: "-----BEGIN CERTIFICATE-----", stallMs: 1000, attempts: 2, pullTimeoutMs: 3000 },
      },
    ]);
    assert.deepEqual(
      (await storageOf("r.io/app:1")).told.map((t) => (t as { auths: object }).auths),
      [{}],
    );
    const away = await storageOf("r.io/app:1", { authFile }, () => Promise.reject(new Error("adaptor away")));
    assert.equal((away.told[0] as { auths?: object }).auths, undefined, "the guest keeps what it has");
  });

  it("names the file that is of no use, and nothing that is in it", async () => {
    const broken = join(dir, "broken.json");
    await writeFile(broken, '{"auths": s3cret');
    const said = await storageOf("r.io/app:1", { authFile: broken }).then(
      () => "",
      (e: unknown) => Fault.from(e).fullMessage,
    );
    assert.match(said, /broken.json is not JSON/);
    assert.doesNotMatch(said, /s3cret/);
    await assert.rejects(
      storageOf("r.io/app:1", { caFile: join(dir, "none") }),
      /shim.images.caFile = ".*none" cannot be read/,
    );
    await assert.rejects(
      storageOf("r.io/app:1", { registries: { x: { caFile: broken } } }),
      /"x".caFile = .* no certificate/,
    );
  });
});

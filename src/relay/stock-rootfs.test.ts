import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { background } from "../base/call.ts";
import { CreateContainerRequest } from "../gen/agent/agent.ts";
import type { TreeSpec } from "./relay.ts";
import { bringRootfs } from "./stock-rootfs.ts";

const PLACE = "/run/kata-containers/shared/containers/c1/rootfs";
let dir = "";
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "stock-rootfs-"));
  await mkdir(join(dir, "c1", "rootfs"), { recursive: true });
});
after(() => rm(dir, { recursive: true }));

type Parts = Parameters<typeof CreateContainerRequest.fromPartial>[0];
const request = (parts: Parts): Buffer =>
  Buffer.from(
    CreateContainerRequest.encode(
      CreateContainerRequest.fromPartial({ containerId: "c1", OCI: { Root: { Path: PLACE } }, ...parts }),
    ).finish(),
  );

async function bring(payload: Buffer) {
  const sent: TreeSpec[] = [];
  const send = async (tree: TreeSpec) => {
    sent.push(tree);
    return { bytes: 1, sha256: "", skipped: false };
  };
  return { edited: await bringRootfs(payload, { dir: async () => dir, send }, background()), sent };
}

describe("root filesystem of a stock shim's container", () => {
  it("is sent from where the shim mounted it, and put where the shim said", async () => {
    const payload = request({ storages: [{ driver: "local", mountPoint: "/run/kata-containers/x" }] });
    const { edited, sent } = await bring(payload);
    assert.deepEqual(sent, [{ treeId: "stock-c1", path: join(dir, "c1", "rootfs") }]);
    assert.deepEqual(edited.subarray(0, payload.length), payload);
    const { storages } = CreateContainerRequest.decode(edited);
    assert.deepEqual(
      storages.map((s) => [s.driver, s.source, s.mountPoint]),
      [
        ["local", "", "/run/kata-containers/x"],
        ["kata-remote-tree", "stock-c1", PLACE],
      ],
    );
  });

  it("is left alone when the request brings it, or names another place", async () => {
    for (const payload of [
      request({ storages: [{ driver: "image_guest_pull", source: "busybox", mountPoint: PLACE }] }),
      request({ storages: [{ driver: "blk", mountPoint: "/run/kata-containers/shared/containers/c1" }] }),
      request({ OCI: { Root: { Path: "/run/kata-containers/c1/rootfs" } } }),
      request({ OCI: undefined }),
      request({ containerId: "c2" }),
    ]) {
      const { edited, sent } = await bring(payload);
      assert.equal(edited, payload);
      assert.deepEqual(sent, []);
    }
  });

  it("is named when it is not there, and never looked for outside of its directory", async () => {
    const place = (id: string): string => `/run/kata-containers/shared/containers/${id}/rootfs`;
    await assert.rejects(bring(request({ containerId: "c9", OCI: { Root: { Path: place("c9") } } })), {
      code: "failed_precondition",
      message: /root filesystem of container c9 is not at .*guest pull/,
    });
    await assert.rejects(bring(request({ containerId: "../c1", OCI: { Root: { Path: place("../c1") } } })), {
      code: "invalid_argument",
    });
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type RootChoice, rootSource } from "./root-source.ts";

const NAME = "io.kubernetes.cri.image-name";
const plain = { type: "overlay", options: ["lowerdir=/a"] };
const volume = (value: object) => ({
  type: "fuse.nydus-overlayfs",
  options: [`io.katacontainers.volume=${Buffer.from(JSON.stringify(value)).toString("base64")}`],
});

function choose(change: Partial<RootChoice> = {}) {
  return rootSource({
    ...{ preferred: "node", containerType: "pod_container", annotations: { [NAME]: "r.io/app:1" }, mounts: [plain] },
    ...change,
  });
}
const NODE = { kind: "node", allowed: false };
const PULLED = { kind: "guest", image: "r.io/app:1" };

describe("a container's root file system", () => {
  it("is the node's, unless the node, the runtime class or the pod says that the VM pulls", () => {
    assert.deepEqual(choose(), NODE);
    assert.deepEqual(choose({ preferred: "guest" }), PULLED);
    assert.deepEqual(choose({ guestPull: true }), PULLED);
    assert.deepEqual(choose({ preferred: "guest", guestPull: false }), NODE);
  });

  it("is pulled in a confidential pod; the node's has to be asked for and allowed", () => {
    assert.deepEqual(choose({ confidential: true }), PULLED);
    const asked = { confidential: true, guestPull: false };
    assert.throws(() => choose(asked), { code: "failed_precondition", message: /allow_node_rootfs = true/ });
    assert.deepEqual(choose({ ...asked, allowNodeRootfs: true }), { kind: "node", allowed: true });
    assert.deepEqual(choose({ confidential: true, allowNodeRootfs: true }), PULLED);
  });

  it("is pulled when the snapshotter brings no other", () => {
    const asked = volume({ volume_type: "image_guest_pull", source: "r.io/other:1" });
    assert.deepEqual(choose({ mounts: [asked] }), PULLED);
    assert.deepEqual(choose({ mounts: [asked], annotations: {}, guestPull: false }), {
      kind: "guest",
      image: "r.io/other:1",
    });
    assert.throws(() => choose({ mounts: [volume({ volume_type: "layer_raw_block" })] }), /type "layer_raw_block"/);
    assert.throws(
      () => choose({ mounts: [{ type: "x", options: ["io.katacontainers.volume=e"] }] }),
      /not base64 of JSON/,
    );
    assert.throws(() => choose({ mounts: [{ type: "fuse.nydus-overlayfs", options: [] }] }), { code: "unimplemented" });
  });

  it("of the pod itself is part of the VM; another one needs a name", () => {
    assert.deepEqual(choose({ guestPull: true, containerType: "pod_sandbox", annotations: {} }), {
      ...{ kind: "guest", image: "pause" },
    });
    const unnamed = { guestPull: true, containerType: "single_container", annotations: {} } as const;
    assert.throws(() => choose(unnamed), {
      code: "invalid_argument",
      message: /--annotation io.kubernetes.cri.image-name=/,
    });
    assert.deepEqual(
      choose({ guestPull: true, annotations: { "io.kubernetes.cri-o.ImageName": "r.io/app:1" } }),
      PULLED,
    );
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { planMounts, type SourceFacts } from "./mount-plan.ts";
import type { OciMount } from "./oci-spec.ts";

const DIRECTORY: SourceFacts = { kind: "directory", filesystem: "other", setgid: undefined };

function plan(mount: OciMount, facts: Partial<SourceFacts> | null = {}) {
  return planMounts({
    containerId: "c1",
    sandboxContainerId: "pod",
    mounts: [mount],
    facts: async () => (facts === null ? undefined : { ...DIRECTORY, ...facts }),
    origin: "config.json",
  });
}

const bind = (source: string, destination = "/data"): OciMount => ({
  destination,
  type: "bind",
  source,
  options: ["rbind", "ro"],
});
const EMPTY_DIR = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache";

describe("mounts", () => {
  for (const type of ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup"]) {
    it(`of type ${type} stay as they are`, async () => {
      const mount = { destination: "/x", type, source: type, options: ["nosuid"] };
      assert.deepEqual(await plan(mount), { mounts: [mount], storages: [], copies: [] });
    });
  }

  it("from the node are copied", async () => {
    const { mounts, copies, storages } = await plan(bind("/srv/data/../conf", "/etc/conf.d"));
    const [copy] = copies;
    assert.match(copy?.guestPath ?? "", /^\/run\/kata-containers\/shared\/containers\/c1-[0-9a-f]{16}-conf\.d$/);
    assert.deepEqual(
      [copy?.source, copy?.destination, copy?.field, storages],
      ["/srv/conf", "/etc/conf.d", "mounts[0]", []],
    );
    assert.deepEqual(mounts, [
      { destination: "/etc/conf.d", type: "bind", source: copy?.guestPath, options: ["rbind", "ro"] },
    ]);
  });

  it("with a bind option are bind mounts whatever their type says", async () => {
    assert.equal((await plan({ destination: "/d", type: "none", source: "/s", options: ["bind"] })).copies.length, 1);
  });

  it("of shared memory are the pod's in the guest", async () => {
    const { mounts, copies } = await plan(bind("/run/containerd/x/shm", "/dev/shm"));
    assert.deepEqual(
      [mounts[0]?.source, mounts[0]?.options, copies],
      ["/run/kata-containers/sandbox/shm", ["rbind"], []],
    );
  });

  it("that are an emptyDir in memory are one in the guest", async () => {
    const { mounts, storages } = await plan(bind(EMPTY_DIR), { filesystem: "tmpfs", setgid: 2000 });
    const [storage] = storages;
    assert.deepEqual(
      [storage?.driver, storage?.fstype, storage?.options, storage?.mountPoint, mounts[0]?.source],
      [
        "ephemeral",
        "tmpfs",
        ["fsgid=2000"],
        "/run/kata-containers/sandbox/ephemeral/cache",
        "/run/kata-containers/sandbox/ephemeral/cache",
      ],
    );
  });

  it("that are an emptyDir on disk are one that the pod shares in the guest", async () => {
    const [storage] = (await plan(bind(EMPTY_DIR))).storages;
    assert.deepEqual(
      [storage?.driver, storage?.options, storage?.mountPoint],
      ["local", ["mode=0777"], "/run/kata-containers/shared/containers/pod/rootfs/local/cache"],
    );
  });

  for (const [what, mount, facts, message] of [
    [
      "a source that is not there",
      bind("/none"),
      null,
      /config\.json: mounts\[0\]\.source = "\/none": there is no such file/,
    ],
    ["a relative source", bind("none"), {}, /must be an absolute path/],
    ["a block device", bind("/srv/disk"), { kind: "block" }, /a block device of the node cannot be used/],
    ["a socket", bind("/run/x.sock"), { kind: "socket" }, /a socket of the node cannot be used/],
    ["the node's /sys", bind("/sys"), {}, /\/sys of the node is not in the VM/],
    ["something below the node's /dev", bind("/dev/fuse"), {}, /\/dev of the node is not in the VM/],
    ["huge pages", bind("/hp"), { filesystem: "hugetlbfs" }, /huge pages of the node/],
    [
      "a disk",
      { destination: "/d", type: "ext4", source: "/dev/sdb" },
      {},
      /mounts\[0\]\.type = "ext4": only bind mounts and/,
    ],
  ] as const) {
    it(`with ${what} are refused by name`, async () => {
      await assert.rejects(plan(mount as OciMount, facts as Partial<SourceFacts> | null), {
        name: "Fault",
        message,
      });
    });
  }
});

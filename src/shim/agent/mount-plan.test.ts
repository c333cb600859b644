import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { planMounts, type SourceFacts } from "./mount-plan.ts";
import type { OciMount } from "./oci-spec.ts";

const DIRECTORY: SourceFacts = {
  kind: "directory",
  filesystem: "other",
  setgid: undefined,
  realPath: "/srv/conf",
};

function plan(mount: OciMount, facts: Partial<SourceFacts> | null = {}, hostPaths?: string[]) {
  return planMounts({
    owner: { containerId: "c1", sandboxContainerId: "pod", podUid: "u" },
    mounts: [mount],
    hostPaths,
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

  it("of a cloud's volume are the guest's to mount, whatever the node has there, once for all containers", async () => {
    const source = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pvc-1/mount";
    const volumes = new Map([[source, { diskId: "vol-1", fsType: "ext4", fsGroup: 2000 }]]);
    const of = (containerId: string) =>
      planMounts({
        ...{ owner: { containerId, sandboxContainerId: "pod", podUid: "u" }, mounts: [bind(source)], volumes },
        ...{ hostPaths: [], origin: "config.json", facts: () => assert.fail("the node has nothing to do with it") },
      });
    const { mounts, storages, copies } = await of("c1");
    const [storage] = storages;
    assert.deepEqual(
      [storage?.driver, storage?.source, storage?.fstype, storage?.options, copies],
      ["kata-remote-volume", "vol-1", "ext4", ["fsgid=2000"], []],
    );
    assert.match(storage?.mountPoint ?? "", /^\/run\/kata-containers\/sandbox\/volumes\/[0-9a-f]{24}$/);
    assert.deepEqual(mounts, [{ ...bind(source), source: storage?.mountPoint }]);
    assert.deepEqual((await of("c2")).storages, storages);
  });

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
    const { mounts, storages } = await plan(bind(EMPTY_DIR), { filesystem: "tmpfs", tmpfsBytes: 4096, setgid: 2000 });
    const [storage] = storages;
    assert.deepEqual(
      [storage?.driver, storage?.fstype, storage?.options, storage?.mountPoint, mounts[0]?.source],
      [
        "ephemeral",
        "tmpfs",
        ["fsgid=2000", "mode=0777", "size=4096"],
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

  it("of a part of an emptyDir are that part of the one that the pod shares", async () => {
    const source = "/k/pods/u/volume-subpaths/cache/app/0";
    const disk = await plan(bind(source), { origin: `${EMPTY_DIR}/a/b` });
    const shared = "/run/kata-containers/shared/containers/pod/rootfs/local/cache";
    assert.deepEqual(
      disk.storages.map((s) => [s.driver, s.mountPoint]),
      [
        ["local", shared],
        ["local", `${shared}/a/b`],
      ],
    );
    assert.equal(disk.mounts[0]?.source, `${shared}/a/b`);
    const memory = await plan(bind(source), { origin: `${EMPTY_DIR}/a`, filesystem: "tmpfs" });
    assert.deepEqual(
      memory.storages.map((s) => s.driver),
      ["ephemeral", "local"],
    );
  });

  for (const [what, source, origin, role] of [
    ["a ConfigMap", "/k/pods/u/volumes/kubernetes.io~configmap/c", undefined, "followed"],
    ["a Secret", "/k/pods/u/volumes/kubernetes.io~secret/c", undefined, "followed"],
    ["a projected volume", "/k/pods/u/volumes/kubernetes.io~projected/c", undefined, "followed"],
    ["the downward API", "/k/pods/u/volumes/kubernetes.io~downward-api/c", undefined, "followed"],
    [
      "a key of a ConfigMap",
      "/k/pods/u/volume-subpaths/c/app/1",
      "/k/pods/u/volumes/kubernetes.io~configmap/c/..1/key",
      "once",
    ],
    ["/etc/hosts of kubelet", "/k/pods/u/etc-hosts", undefined, "once"],
    ["the termination message", "/k/pods/u/containers/app/1a2b3c4d", undefined, "termination-log"],
    ["resolv.conf of the runtime", "/c/sandboxes/0123456789ab/resolv.conf", undefined, "once"],
  ] as const) {
    it(`of ${what} need no permission: ${role}`, async () => {
      const owner = { containerId: "c1", sandboxContainerId: "0123456789ab", podUid: "u" };
      const facts = { ...DIRECTORY, realPath: source, ...(origin === undefined ? {} : { origin }) };
      const { copies } = await planMounts({
        ...{ owner, mounts: [bind(source)], hostPaths: [], origin: "config.json" },
        facts: async () => facts,
      });
      assert.deepEqual(
        copies.map((c) => [c.role, c.source]),
        [[role, source]],
      );
    });
  }

  for (const [what, source, facts] of [
    ["hostPath", "/srv/conf", {}],
    ["a hostPath that is a link out of what is allowed", "/opt/link", { realPath: "/etc" }],
    ["a Secret of another pod", "/k/pods/other/volumes/kubernetes.io~secret/c", {}],
    ["a persistent volume", "/k/pods/u/volumes/kubernetes.io~csi/pvc-1/mount", {}],
    ["a part of a persistent volume", "/k/pods/u/volume-subpaths/pv/app/0", { origin: "/k/pods/u/volumes/x~y/pv/d" }],
  ] as const) {
    it(`of ${what} are refused by name unless the node's configuration lists it`, async () => {
      const asked = { realPath: source, ...facts };
      await assert.rejects(plan(bind(source), asked, ["/opt"]), {
        code: "failed_precondition",
        message: new RegExp(`mounts\\[0\\]\\.source = "${source}": .*shim\\.hostPaths`),
      });
      assert.equal((await plan(bind(source), asked, ["/srv", "/opt", "/etc", "/k"])).copies[0]?.role, "once");
    });
  }

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

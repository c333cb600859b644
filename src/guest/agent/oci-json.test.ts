import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { LinuxResources, Process, Spec } from "../../gen/agent/oci.ts";
import { type GuestPlacement, ociText, processToOci, resourcesToOci, specToOci } from "./oci-json.ts";

const placement: GuestPlacement = {
  rootPath: "/run/kata-containers/c/rootfs",
  cgroupsPath: "/pod/c",
  namespaces: { network: "/run/netns/podns", ipc: "/run/sandbox-ns/ipc", uts: "/run/sandbox-ns/uts" },
  keepHostname: true,
};

interface Entry {
  readonly type?: string;
  readonly destination?: string;
}

/** The converted document as a function from dotted paths to what is there. */
function convert(
  spec: Parameters<typeof Spec.fromPartial>[0],
  over: Partial<GuestPlacement> = {},
): (path: string) => unknown {
  const full = Spec.fromPartial({ Process: { Args: ["sh"] }, ...spec });
  const document: unknown = JSON.parse(ociText(specToOci(full, { ...placement, ...over })));
  return (path) => path.split(".").reduce((at, key) => (at as Record<string, unknown> | undefined)?.[key], document);
}

describe("specToOci", () => {
  it("puts the container where the guest wants it, whatever the request says", () => {
    const oci = convert({
      Version: "9.9.9",
      Hostname: "other",
      Root: { Path: "/somewhere", Readonly: true },
      Linux: {
        CgroupsPath: "system.slice:x:y",
        Namespaces: [
          { Type: "pid", Path: "" },
          { Type: "network", Path: "" },
        ],
      },
    });
    assert.deepEqual(oci("root"), { path: placement.rootPath, readonly: true });
    assert.equal(oci("linux.cgroupsPath"), "/pod/c");
    assert.equal(oci("hostname"), undefined);
    assert.deepEqual(oci("linux.namespaces"), [
      { type: "mount" },
      { type: "cgroup" },
      { type: "pid" },
      { type: "network", path: "/run/netns/podns" },
      { type: "ipc", path: "/run/sandbox-ns/ipc" },
      { type: "uts", path: "/run/sandbox-ns/uts" },
    ]);
  });

  it("never shares the guest's own PID namespace, not even with a spec that names none", () => {
    const pidNamespace = (oci: ReturnType<typeof convert>): Entry | undefined =>
      (oci("linux.namespaces") as Entry[]).find((n) => n.type === "pid");
    assert.ok(pidNamespace(convert({})) !== undefined);
    const shared = convert({}, { namespaces: { ...placement.namespaces, pid: "/proc/7/ns/pid" } });
    assert.deepEqual(pidNamespace(shared), { type: "pid", path: "/proc/7/ns/pid" });
  });

  it("denies devices unless the request has rules of its own", () => {
    assert.deepEqual(convert({})("linux.resources.devices"), [{ allow: false, access: "rwm" }]);
    const own = convert({
      Linux: { Resources: { Devices: [{ Allow: true, Type: "c", Major: 1n, Minor: -1n, Access: "rw" }] } },
    });
    assert.deepEqual(own("linux.resources.devices"), [{ allow: true, type: "c", major: 1, access: "rw" }]);
  });

  it("always mounts /proc, once", () => {
    const proc = (oci: ReturnType<typeof convert>): number =>
      (oci("mounts") as Entry[]).filter((m) => m.destination === "/proc").length;
    assert.equal(proc(convert({})), 1);
    const given = { destination: "/proc", type: "proc", source: "proc", options: ["ro"] };
    const oci = convert({ Mounts: [given] });
    assert.equal(proc(oci), 1);
    assert.deepEqual(oci("mounts.0"), given);
  });

  it("keeps what containers ask of their kernel", () => {
    const oci = convert({
      Linux: {
        Sysctl: { "net.core.somaxconn": "1024" },
        MaskedPaths: ["/proc/kcore"],
        Devices: [{ Path: "/dev/fuse", Type: "c", Major: 10n, Minor: 229n, FileMode: 0o666, UID: 0, GID: 0 }],
        Seccomp: {
          DefaultAction: "SCMP_ACT_ERRNO",
          Architectures: ["SCMP_ARCH_X86_64"],
          Syscalls: [
            {
              Names: ["read"],
              Action: "SCMP_ACT_ALLOW",
              Args: [{ Index: 0n, Value: 1n, ValueTwo: 0n, Op: "SCMP_CMP_EQ" }],
            },
          ],
        },
      },
    });
    assert.deepEqual(oci("linux.sysctl"), { "net.core.somaxconn": "1024" });
    assert.deepEqual(oci("linux.maskedPaths"), ["/proc/kcore"]);
    assert.deepEqual(oci("linux.devices"), [{ path: "/dev/fuse", type: "c", major: 10, minor: 229, fileMode: 0o666 }]);
    assert.deepEqual(oci("linux.seccomp.syscalls"), [
      { names: ["read"], action: "SCMP_ACT_ALLOW", args: [{ index: 0, value: 1, valueTwo: 0, op: "SCMP_CMP_EQ" }] },
    ]);
  });
});

describe("processToOci", () => {
  it("sets the OOM score even when it is 0, so that the agent's is not inherited", () => {
    assert.equal(processToOci(Process.fromPartial({ Args: ["a"] })).oomScoreAdj, 0);
  });

  it("keeps 64-bit limits exact", () => {
    const process = Process.fromPartial({
      Args: ["a"],
      Rlimits: [{ Type: "RLIMIT_CORE", Hard: 2n ** 64n - 1n, Soft: 0n }],
    });
    assert.match(ociText(processToOci(process)), /"hard":18446744073709551615,"soft":0/);
  });

  it("refuses a process without arguments", () => {
    assert.throws(() => processToOci(Process.fromPartial({})), { code: "invalid_argument" });
  });
});

describe("resourcesToOci", () => {
  it("takes zero as not set", () => {
    assert.deepEqual(
      resourcesToOci(LinuxResources.fromPartial({ Memory: { Limit: 0n }, CPU: { Shares: 2n, Quota: 0n } })),
      {
        cpu: { shares: 2n },
      },
    );
  });

  it("names what cgroup v2 cannot do", () => {
    const resources = LinuxResources.fromPartial({ Memory: { DisableOOMKiller: true } });
    assert.throws(() => resourcesToOci(resources), /disableOOMKiller/);
  });
});

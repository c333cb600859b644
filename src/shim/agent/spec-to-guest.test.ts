import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { baseSpec } from "../../../test/fakes/shim.ts";
import { Spec } from "../../gen/agent/oci.ts";
import { OciSpec, parseOci } from "./oci-spec.ts";
import { specToGuest } from "./spec-to-guest.ts";

const OPTIONS = {
  containerType: "pod_container",
  bundle: "/bundle",
  rootPath: "/guest/rootfs",
  mounts: [],
  seccomp: false,
} as const;

function convert(change: Record<string, unknown>, options: Partial<Parameters<typeof specToGuest>[1]> = {}) {
  const spec = parseOci(OciSpec, JSON.stringify({ ...baseSpec(), ...change }), "config.json");
  const { spec: guest, sandboxPidns } = specToGuest(spec, { ...OPTIONS, ...options });
  // Over the wire and back: what does not survive that was not sent.
  return { guest: Spec.decode(Spec.encode(guest).finish()), sandboxPidns };
}

const withProcess = (change: Record<string, unknown>) =>
  convert({ process: { ...(baseSpec().process as object), ...change } }).guest.Process;
const withLinux = (change: Record<string, unknown>, options = {}) =>
  convert({ linux: { ...(baseSpec().linux as object), ...change } }, options).guest.Linux;

describe("a spec on its way into the guest", () => {
  it("has the guest's root path and keeps read-only", () => {
    const { guest } = convert({ root: { path: "rootfs", readonly: true } });
    assert.deepEqual([guest.Root?.Path, guest.Root?.Readonly, guest.Version], ["/guest/rootfs", true, "1.0.2"]);
  });

  it("loses what only the VM itself can be: network, cgroup and time namespaces, and every path", () => {
    const namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup", "time"].map((type) => ({
      type,
      path: type === "ipc" ? "/proc/1/ns/ipc" : undefined,
    }));
    assert.deepEqual(
      withLinux({ namespaces })?.Namespaces.map(({ Type, Path }) => [Type, Path]),
      [
        ["pid", ""],
        ["ipc", ""],
        ["uts", ""],
        ["mount", ""],
      ],
    );
  });

  it("shares the pod's PID namespace when the node's spec joins one", () => {
    const namespaces = [{ type: "pid", path: "/proc/7/ns/pid" }, { type: "mount" }];
    const { guest, sandboxPidns } = convert({ linux: { namespaces } });
    assert.deepEqual([sandboxPidns, guest.Linux?.Namespaces.map((n) => n.Type)], [true, ["mount"]]);
    assert.equal(convert({}).sandboxPidns, false);
  });

  it("keeps limits of memory and CPU time, drops what names things of the node", () => {
    const resources = {
      memory: { limit: 1024, swap: 2048 },
      cpu: { quota: 50_000, period: 100_000, shares: 512, cpus: "0-3", mems: "0" },
      devices: [{ allow: false, access: "rwm" }],
      pids: { limit: 5 },
      blockIO: { weight: 10 },
      network: { classID: 1 },
      hugepageLimits: [
        { pageSize: "2MB", limit: 0 },
        { pageSize: "1GB", limit: 5 },
      ],
    };
    const r = withLinux({ resources })?.Resources;
    assert.deepEqual(
      [r?.Memory?.Limit, r?.Memory?.Swap, r?.CPU?.Quota, r?.CPU?.Period, r?.CPU?.Shares, r?.CPU?.Cpus, r?.CPU?.Mems],
      [1024n, 2048n, 50_000n, 100_000n, 512n, "", ""],
    );
    assert.deepEqual([r?.Devices, r?.Pids, r?.BlockIO, r?.Network], [[], undefined, undefined, undefined]);
    assert.deepEqual(
      r?.HugepageLimits.map((h) => [h.Pagesize, h.Limit]),
      [["1GB", 5n]],
    );
  });

  it("carries numbers beyond 2^53 and below zero", () => {
    const text = JSON.stringify({ ...baseSpec(), linux: { resources: { memory: { limit: -1 } } } }).replace(
      '"cwd":"/"',
      '"cwd":"/","rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":9223372036854775807}]',
    );
    const { spec } = specToGuest(parseOci(OciSpec, text, "config.json"), OPTIONS);
    assert.deepEqual(
      [spec.Process?.Rlimits[0]?.Hard, spec.Process?.Rlimits[0]?.Soft],
      [2n ** 64n - 1n, 2n ** 63n - 1n],
    );
    assert.equal(spec.Linux?.Resources?.Memory?.Limit, -1n);
  });

  it("has seccomp only when the guest may and can", () => {
    const seccomp = {
      defaultAction: "SCMP_ACT_ERRNO",
      architectures: ["SCMP_ARCH_X86_64"],
      syscalls: [
        {
          names: ["clone"],
          action: "SCMP_ACT_ALLOW",
          errnoRet: 0,
          args: [{ index: 0, value: 2114060288, op: "SCMP_CMP_MASKED_EQ" }],
        },
      ],
    };
    assert.equal(withLinux({ seccomp })?.Seccomp, undefined);
    const kept = withLinux({ seccomp }, { seccomp: true })?.Seccomp;
    assert.deepEqual(
      [kept?.DefaultAction, kept?.Syscalls[0]?.Names, kept?.Syscalls[0]?.errnoret, kept?.Syscalls[0]?.Args[0]?.Value],
      ["SCMP_ACT_ERRNO", ["clone"], 0, 2_114_060_288n],
    );
  });

  it("has no labels and profiles of the node", () => {
    const p = withProcess({
      apparmorProfile: "cri-containerd.apparmor.d",
      selinuxLabel: "system_u:system_r:container_t:s0",
    });
    assert.deepEqual([p?.ApparmorProfile, p?.SelinuxLabel], ["", ""]);
  });

  it("always has capabilities and a user, without which the stock agent crashes", () => {
    const p = convert({ process: { args: ["a"], cwd: "/" } }).guest.Process;
    assert.deepEqual([p?.Capabilities?.Bounding, p?.User?.UID], [[], 0]);
  });

  it("keeps the process as it is", () => {
    const p = withProcess({
      terminal: true,
      args: ["sh", "-c", "exit 3"],
      env: ["A=b"],
      cwd: "/tmp",
      user: { uid: 1000, gid: 100, additionalGids: [4, 5], username: "u" },
      capabilities: { bounding: ["CAP_CHOWN"], effective: ["CAP_KILL"] },
      noNewPrivileges: true,
      oomScoreAdj: -5,
      consoleSize: { height: 24, width: 80 },
    });
    assert.deepEqual(
      [p?.Terminal, p?.Args, p?.Env, p?.Cwd, p?.User?.UID, p?.User?.GID, p?.User?.AdditionalGids, p?.User?.Username],
      [true, ["sh", "-c", "exit 3"], ["A=b"], "/tmp", 1000, 100, [4, 5], "u"],
    );
    assert.deepEqual(
      [
        p?.Capabilities?.Bounding,
        p?.Capabilities?.Effective,
        p?.NoNewPrivileges,
        p?.OOMScoreAdj,
        p?.ConsoleSize?.Width,
      ],
      [["CAP_CHOWN"], ["CAP_KILL"], true, -5n, 80],
    );
  });

  it("keeps sysctls, paths, devices of the guest, cgroup path and host name", () => {
    const linux = withLinux({
      sysctl: { "net.core.somaxconn": "5" },
      maskedPaths: ["/proc/kcore"],
      readonlyPaths: ["/proc/sys"],
      cgroupsPath: "/default/c1",
      rootfsPropagation: "rslave",
      devices: [{ path: "/dev/fuse", type: "c", major: 10, minor: 229 }],
    });
    assert.deepEqual(
      [linux?.Sysctl, linux?.MaskedPaths, linux?.ReadonlyPaths, linux?.CgroupsPath, linux?.RootfsPropagation],
      [{ "net.core.somaxconn": "5" }, ["/proc/kcore"], ["/proc/sys"], "/default/c1", "rslave"],
    );
    assert.deepEqual(
      linux?.Devices.map((d) => [d.Path, d.Major, d.Minor, d.FileMode]),
      [["/dev/fuse", 10n, 229n, 0o666]],
    );
    assert.equal(convert({ hostname: "web-0" }).guest.Hostname, "web-0");
  });

  it("keeps annotations but those for the node, and says what the container is", () => {
    const annotations = {
      mine: "1",
      "io.katacontainers.config.agent.policy": "secret",
      "io.katacontainers.config.hypervisor.cc_init_data": "data",
    };
    assert.deepEqual(convert({ annotations }).guest.Annotations, {
      mine: "1",
      "io.katacontainers.pkg.oci.bundle_path": "/bundle",
      "io.katacontainers.pkg.oci.container_type": "pod_container",
    });
  });

  it("names the pod's network namespace on sandboxes only", () => {
    const linux = { namespaces: [{ type: "network", path: "/var/run/netns/cni-1" }] };
    const of = (containerType: "pod_sandbox" | "pod_container") =>
      convert({ linux }, { containerType }).guest.Annotations["nerdctl/network-namespace"];
    assert.deepEqual([of("pod_sandbox"), of("pod_container")], ["/var/run/netns/cni-1", undefined]);
  });

  it("has no hooks", () => {
    assert.equal(convert({ hooks: { prestart: [{ path: "/bin/x" }] } }).guest.Hooks, undefined);
  });

  it("takes null for absent, as Go's encoder writes it", () => {
    assert.deepEqual(convert({ mounts: null, annotations: null, hostname: null }).guest.Hostname, "");
  });
});

describe("parseOci", () => {
  it("never throws anything but a Fault that names the origin", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        try {
          parseOci(OciSpec, JSON.stringify(value), "/b/config.json");
        } catch (e) {
          assert.equal((e as Error).name, "Fault");
          assert.match((e as Error).message, /^\/b\/config\.json/);
        }
      }),
    );
  });

  for (const [change, message] of [
    [{ process: { args: ["a"], cwd: "relative" } }, /process\.cwd must match pattern "\^\/", it is "relative"/],
    [{ process: { args: "sh", cwd: "/" } }, /process\.args must be array, it is "sh"/],
    [{ mounts: [{ destination: "/a" }, { destination: 5 }] }, /mounts\[1\]\.destination must be string, it is 5/],
    [{ root: {} }, /root must have required properties path/],
    [{ annotations: { a: 1 } }, /annotations\.a must be string, it is 1/],
  ] as const) {
    it(`says ${message.source}`, () => {
      assert.throws(() => parseOci(OciSpec, JSON.stringify({ ...baseSpec(), ...change }), "config.json"), message);
    });
  }
});

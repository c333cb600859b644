import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { baseSpec } from "../../../test/fakes/shim.ts";
import { OciSpec, parseOci } from "./oci-spec.ts";
import { refusals, refuseUnsupported } from "./refuse-unsupported.ts";

const base = baseSpec();
const linux = (change: Record<string, unknown>) => ({ ...base, linux: { ...(base.linux as object), ...change } });
const process = (change: Record<string, unknown>) => ({ ...base, process: { ...(base.process as object), ...change } });
const without = (type: string) =>
  linux({ namespaces: ["pid", "ipc", "uts", "mount", "network"].filter((t) => t !== type).map((t) => ({ type: t })) });
const mount = (change: Record<string, unknown>) => ({
  ...base,
  mounts: [{ destination: "/m", type: "bind", source: "/s", ...change }],
});

function fields(spec: unknown): string[] {
  return refusals(parseOci(OciSpec, JSON.stringify(spec), "config.json")).map((r) => r.field);
}

describe("what a pod VM cannot do is refused by name", () => {
  for (const [what, spec, field] of [
    ["hostNetwork", without("network"), "linux.namespaces"],
    ["hostPID", without("pid"), "linux.namespaces"],
    ["hostIPC", without("ipc"), "linux.namespaces"],
    ["the host's UTS namespace", without("uts"), "linux.namespaces"],
    ["the host's mount namespace", without("mount"), "linux.namespaces"],
    [
      "a user namespace",
      linux({ namespaces: [...["pid", "ipc", "uts", "mount", "network"].map((type) => ({ type })), { type: "user" }] }),
      "linux.namespaces[5]",
    ],
    ["id mappings", linux({ uidMappings: [{ containerID: 0, hostID: 1000, size: 1 }] }), "linux.uidMappings"],
    [
      "a device of the node",
      linux({
        devices: [
          { path: "/dev/null", type: "c" },
          { path: "/dev/sda", type: "b", major: 8, minor: 0 },
        ],
      }),
      "linux.devices[1].path",
    ],
    ["a shared root", linux({ rootfsPropagation: "rshared" }), "linux.rootfsPropagation"],
    ["mount propagation to the node", mount({ options: ["rbind", "rshared"] }), "mounts[0].options"],
    ["an id-mapped mount", mount({ uidMappings: [{ containerID: 0, hostID: 1, size: 1 }] }), "mounts[0].uidMappings"],
    ["an AppArmor profile of the node", process({ apparmorProfile: "my-profile" }), "process.apparmorProfile"],
    ["hooks", { ...base, hooks: { createRuntime: [{ path: "/x" }] } }, "hooks.createRuntime"],
    ["a scheduler", process({ scheduler: { policy: "SCHED_RR" } }), "process.scheduler"],
    ["time offsets", linux({ timeOffsets: { monotonic: { secs: 1 } } }), "linux.timeOffsets"],
    ["a foreign personality", linux({ personality: { domain: "LINUX32" } }), "linux.personality"],
    ["cache allocation", linux({ intelRdt: { closID: "x" } }), "linux.intelRdt"],
    [
      "a seccomp agent",
      linux({ seccomp: { defaultAction: "SCMP_ACT_NOTIFY", listenerPath: "/run/a.sock" } }),
      "linux.seccomp.listenerPath",
    ],
    ["a Windows spec", { ...base, windows: { layerFolders: ["x"] } }, "windows"],
  ] as const) {
    it(what, () => assert.deepEqual(fields(spec), [field]));
  }

  it("with field, value and remedy of every one of them", () => {
    const spec = parseOci(
      OciSpec,
      JSON.stringify({ ...without("pid"), hooks: { poststop: [{ path: "/x" }] } }),
      "config.json",
    );
    assert.throws(() => refuseUnsupported(spec, "/b/config.json"), {
      code: "failed_precondition",
      message:
        /^\/b\/config\.json: linux\.namespaces = \["ipc","uts","mount","network"\]: no "pid" entry \(hostPID: true\).*; hooks\.poststop = \[\{"path":"\/x"\}\]: hooks of the node/,
    });
  });

  it("but not with hundreds of lines when a privileged container has all devices", () => {
    const all = Array.from({ length: 100 }, (_, i) => ({ path: `/dev/tty${i}`, type: "c" }));
    const spec = parseOci(OciSpec, JSON.stringify(linux({ devices: all })), "config.json");
    assert.throws(
      () => refuseUnsupported(spec, "config.json"),
      (e: Error) => e.message.length < 1_500 && /; and 96 more, to linux\.devices\[99\]\.path$/.test(e.message),
    );
  });
});

describe("what works inside the guest passes", () => {
  for (const [what, spec] of [
    ["ctr's default", base],
    ["devices that every guest has", linux({ devices: [{ path: "/dev/fuse", type: "c", major: 10, minor: 229 }] })],
    ["slave propagation", mount({ options: ["rbind", "rslave"] })],
    ["containerd's AppArmor profile", process({ apparmorProfile: "cri-containerd.apparmor.d" })],
    ["empty hooks", { ...base, hooks: { prestart: [] } }],
    ["the usual personality", linux({ personality: { domain: "LINUX" } })],
    ["cgroup v2 settings of the node", linux({ resources: { unified: { "memory.oom.group": "1" } } })],
  ] as const) {
    it(what, () => assert.deepEqual(fields(spec), []));
  }
});

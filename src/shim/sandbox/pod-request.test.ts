import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { baseSpec } from "../../../test/fakes/shim.ts";
import { OciSpec, parseOci } from "../agent/index.ts";
import { annotationGate } from "../settings/index.ts";
import { podOverrides } from "./pod-overrides.ts";
import { podRole } from "./pod-role.ts";
import { podSize } from "./sizing.ts";

const CRI = "io.kubernetes.cri.";
const KATA = "io.katacontainers.config.";
const ALL = { where: "enable_annotations", allows: () => true };

describe("podRole", () => {
  it("without annotations is a container alone", () => {
    assert.deepEqual(podRole({}, "c1"), {
      containerType: "single_container",
      sandboxContainerId: "c1",
      pod: { namespace: "", name: "c1", uid: "" },
    });
  });

  it("reads containerd's keys", () => {
    const annotations = {
      [`${CRI}container-type`]: "container",
      [`${CRI}sandbox-id`]: "p",
      [`${CRI}sandbox-name`]: "web",
      [`${CRI}sandbox-namespace`]: "ns",
      [`${CRI}sandbox-uid`]: "u",
    };
    assert.deepEqual(podRole(annotations, "c1"), {
      containerType: "pod_container",
      sandboxContainerId: "p",
      pod: { namespace: "ns", name: "web", uid: "u" },
    });
    assert.equal(podRole({ ...annotations, [`${CRI}container-type`]: "sandbox" }, "p").containerType, "pod_sandbox");
  });

  it("reads CRI-O's and docker's keys", () => {
    const crio = { "io.kubernetes.cri-o.ContainerType": "sandbox", "io.kubernetes.cri-o.KubeName": "web" };
    assert.deepEqual([podRole(crio, "p").containerType, podRole(crio, "p").pod.name], ["pod_sandbox", "web"]);
    assert.equal(podRole({ "io.kubernetes.docker.type": "podsandbox" }, "p").containerType, "pod_sandbox");
  });

  it("refuses an unknown type and a container without pod, by name", () => {
    assert.throws(() => podRole({ [`${CRI}container-type`]: "Sandbox" }, "c1"), {
      code: "invalid_argument",
      message: /io\.kubernetes\.cri\.container-type is "Sandbox"/,
    });
    assert.throws(() => podRole({ [`${CRI}container-type`]: "container" }, "c1"), {
      message: /io\.kubernetes\.cri\.sandbox-id is missing/,
    });
  });
});

describe("podOverrides", () => {
  it("reads every supported annotation and leaves others alone", () => {
    assert.deepEqual(
      podOverrides(
        {
          [`${KATA}hypervisor.machine_type`]: "m6a.large",
          [`${KATA}hypervisor.image`]: "ami-0123",
          [`${KATA}hypervisor.default_vcpus`]: "1.5",
          [`${KATA}hypervisor.default_memory`]: "2048",
          [`${KATA}hypervisor.default_gpus`]: "1",
          [`${KATA}runtime.hypervisor_name`]: "qemu",
          [`${KATA}runtime.create_container_timeout`]: "300",
          [`${KATA}agent.policy`]: Buffer.from("package p").toString("base64"),
          "io.katacontainers.pkg.oci.bundle_path": "/b",
          other: "x",
        },
        ALL,
      ),
      {
        instanceType: "m6a.large",
        image: "ami-0123",
        vcpus: 1.5,
        memoryMiB: 2048,
        gpus: 1,
        hypervisor: "qemu",
        createContainerTimeoutMs: 300_000,
        policy: "package p",
      },
    );
  });

  for (const [key, value] of [
    ["hypervisor.default_vcpus", "-1"],
    ["hypervisor.default_vcpus", "1e3"],
    ["hypervisor.default_vcpus", ""],
    ["hypervisor.default_memory", "1.5"],
    ["hypervisor.default_memory", "2Gi"],
    ["hypervisor.default_gpus", "many"],
    ["hypervisor.machine_type", ""],
    ["hypervisor.image", "a b"],
    ["runtime.hypervisor_name", "clh"],
    ["runtime.create_container_timeout", "0"],
    ["agent.policy", "%%%"],
  ] as const) {
    it(`refuses ${key} = "${value}" by name`, () => {
      assert.throws(
        () => podOverrides({ [KATA + key]: value }, ALL),
        (e: Error & { code?: string }) =>
          e.code === "invalid_argument" && e.message.includes(`${KATA}${key} = "${value}" is not valid`),
      );
    });
  }

  it("refuses what is not enabled, naming annotation and list; only the hypervisor's are gated", () => {
    const gate = annotationGate(["^default_v", "image"], "enable_annotations in /etc/kata.toml");
    const read = (key: string, value: string) => podOverrides({ [KATA + key]: value }, gate);
    assert.deepEqual(read("hypervisor.default_vcpus", "2"), { vcpus: 2 });
    assert.deepEqual(read("runtime.create_container_timeout", "5"), { createContainerTimeoutMs: 5_000 });
    assert.throws(() => read("hypervisor.default_memory", "512"), {
      code: "failed_precondition",
      message:
        'annotation io.katacontainers.config.hypervisor.default_memory = "512" is not enabled; remove it, or add "default_memory" to enable_annotations in /etc/kata.toml',
    });
    assert.throws(() => annotationGate(["("], "enable_annotations"), { message: /"\(" is no regular expression/ });
  });

  it("refuses what it cannot do, rather than ignore it", () => {
    assert.throws(() => podOverrides({ [`${KATA}hypervisor.kernel_params`]: "x=y" }, ALL), {
      code: "failed_precondition",
      message: /kernel_params = "x=y" is not supported/,
    });
  });
});

describe("podSize", () => {
  const size = (annotations: Record<string, string>, resources: unknown = {}, overrides = {}) => {
    const spec = parseOci(OciSpec, JSON.stringify({ ...baseSpec(), annotations, linux: { resources } }), "config.json");
    return podSize(spec, podRole(annotations, "c1"), overrides);
  };
  const sandbox = { [`${CRI}container-type`]: "sandbox" };

  for (const [what, annotations, resources, overrides, expected] of [
    ["nothing: the backend's default", {}, {}, {}, [0, 0]],
    [
      "a lone container's limits",
      {},
      { cpu: { quota: 150_000, period: 100_000 }, memory: { limit: 100 << 20 } },
      {},
      [1.5, 100],
    ],
    ["a lone container without limits", {}, { cpu: { quota: -1, shares: 2048 }, memory: { limit: -1 } }, {}, [0, 0]],
    ["a limit that is none", {}, { memory: { limit: 9223372036854771712n } }, {}, [0, 0]],
    [
      "a pod's sums",
      {
        ...sandbox,
        [`${CRI}sandbox-cpu-quota`]: "50000",
        [`${CRI}sandbox-cpu-period`]: "100000",
        [`${CRI}sandbox-memory`]: "1048577",
      },
      {},
      {},
      [0.5, 2],
    ],
    [
      "the static CPU manager's shares",
      { ...sandbox, [`${CRI}sandbox-cpu-quota`]: "-1", [`${CRI}sandbox-cpu-shares`]: "3000" },
      {},
      {},
      [3, 0],
    ],
    ["an explicit base below the limits", {}, { memory: { limit: 100 << 20 } }, { vcpus: 2, memoryMiB: 256 }, [2, 356]],
  ] as const) {
    it(`of ${what}`, () => {
      const spec = JSON.parse(JSON.stringify(resources, (_k, v) => (typeof v === "bigint" ? Number(v) : v)));
      const { vcpus, memoryMiB } = size(annotations, spec, overrides);
      assert.deepEqual([vcpus, memoryMiB], expected);
    });
  }

  it("names an annotation that is no number", () => {
    assert.throws(() => size({ ...sandbox, [`${CRI}sandbox-memory`]: "1Gi" }), {
      message: /sandbox-memory = "1Gi" is not valid/,
    });
  });
});

import { AgentServiceDefinition, CreateContainerRequest } from "../../src/gen/agent/agent.ts";
import { HealthDefinition } from "../../src/gen/agent/health.ts";
import { CreateTaskRequest, TaskDefinition } from "../../src/gen/containerd/task/v2/shim.ts";
import { CreateVMRequest, HypervisorDefinition } from "../../src/gen/hypervisor/hypervisor.ts";
import { PodVMInfoDefinition } from "../../src/gen/hypervisor/podvminfo.ts";
import { ConfigureRequest, GuestDefinition, StatTreeRequest } from "../../src/gen/kataremote/guest/v1/guest.ts";
import type { ServiceDefinition } from "../../src/ttrpc/index.ts";
import type { Sample } from "./target.ts";
import { field, varint } from "./wire.ts";

/** Ids that samples share, so that what one call makes another one finds. */
const IDS = ["c1", "c2", "sandbox-a", "sandbox-b"];

/** Every method with its first fields as most requests have them: an id or two, some bytes, a number. */
function plain(definition: ServiceDefinition, but: readonly string[] = []): Sample[] {
  const payload = Buffer.concat([
    field(1, Buffer.from("c1")),
    field(2, Buffer.from("c1")),
    field(3, Buffer.from("some bytes")),
    Buffer.concat([varint(4 * 8), varint(4096)]),
  ]);
  return Object.values(definition.methods)
    .filter((m) => !but.includes(m.name))
    .map((m) => ({ service: definition.fullName, method: m.name, payload }));
}

const EXTRA: readonly Sample[] = [
  { service: "no.such.Service", method: "Nothing", payload: Buffer.from("x") },
  { service: "", method: "", payload: Buffer.alloc(0) },
  { service: "grpc.AgentService", method: "NotYetInvented", payload: Buffer.alloc(1000, 1) },
];

function createContainer(id: string): Sample {
  const request = CreateContainerRequest.fromPartial({
    containerId: id,
    execId: id,
    storages: [{ driver: "local", source: "local", fstype: "local", mountPoint: "/run/kata-containers/x" }],
    OCI: {
      Version: "1.0.2",
      Process: { Args: ["sleep", "1"], Env: ["A=b"], Cwd: "/" },
      Root: { Path: "/run/kata-containers/c1/rootfs" },
      Mounts: [
        { destination: "/v", source: "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount", type: "bind" },
      ],
      Annotations: { "io.katacontainers.config.hypervisor.default_gpus": "1", k: "v" },
      Linux: { Namespaces: [{ Type: "network", Path: "" }] },
    },
  });
  const payload = Buffer.from(CreateContainerRequest.encode(request).finish());
  return { service: AgentServiceDefinition.fullName, method: "CreateContainer", payload };
}

export const AGENT_SAMPLES: readonly Sample[] = [
  ...plain(AgentServiceDefinition),
  ...plain(HealthDefinition),
  ...IDS.map(createContainer),
  ...EXTRA,
];

export const GUEST_SAMPLES: readonly Sample[] = [
  ...AGENT_SAMPLES,
  ...plain(GuestDefinition),
  {
    service: GuestDefinition.fullName,
    method: "Configure",
    payload: Buffer.from(
      ConfigureRequest.encode(ConfigureRequest.fromPartial({ sandboxId: "other", podNetworkJson: "{}" })).finish(),
    ),
  },
  {
    service: GuestDefinition.fullName,
    method: "StatTree",
    payload: Buffer.from(StatTreeRequest.encode({ treeId: "t" }).finish()),
  },
];

/** @param bundle a directory with a config.json */
export function taskSamples(bundle: string): readonly Sample[] {
  const create = IDS.flatMap((id) =>
    [{}, { options: { typeUrl: "x", value: Buffer.from("y") } }].map((options) => ({
      service: TaskDefinition.fullName,
      method: "Create",
      payload: Buffer.from(
        CreateTaskRequest.encode(CreateTaskRequest.fromPartial({ id, bundle, ...options })).finish(),
      ),
    })),
  );
  return [...plain(TaskDefinition, ["Create"]), ...create, ...EXTRA];
}

export const HYPERVISOR_SAMPLES: readonly Sample[] = [
  ...IDS.flatMap((id) => [
    {
      service: HypervisorDefinition.fullName,
      method: "CreateVM",
      payload: Buffer.from(
        CreateVMRequest.encode(
          CreateVMRequest.fromPartial({
            id,
            annotations: {
              "io.kubernetes.cri.sandbox-name": "web",
              "io.kubernetes.cri.sandbox-namespace": "default",
              "io.katacontainers.config.hypervisor.default_vcpus": "1.5",
              "io.katacontainers.config.hypervisor.default_memory": "0",
              "io.katacontainers.config.hypervisor.cc_init_data": "",
            },
          }),
        ).finish(),
      ),
    },
    ...["StartVM", "StopVM"].map((method) => ({
      service: HypervisorDefinition.fullName,
      method,
      payload: field(1, Buffer.from(id)),
    })),
  ]),
  ...plain(PodVMInfoDefinition),
  ...plain(HypervisorDefinition),
  ...EXTRA,
];

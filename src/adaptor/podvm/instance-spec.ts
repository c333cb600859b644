import type { InstanceSpec } from "../../provider/index.ts";
import type { CreateIntent, SandboxRecord } from "../store/index.ts";

/** Size of a pod VM that doesn't say how large it should be. */
export interface VmDefaults {
  /** 0 leaves it to the provider. */
  readonly vcpus: number;
  /** What a pod may use, MiB. */
  readonly memoryMiB: number;
  /** What the guest itself needs on top of the pod's memory, MiB. */
  readonly guestOverheadMiB: number;
}

const MAX_NAME_BYTES = 63;
/** "podvm-" and "-" with eight characters of the id: what is left of the name is the pod's. */
const FRAME_BYTES = 15;

/** `podvm-<pod>-<first 8 of the sandbox id>`, a DNS label. Source: peer-pods wire contract §3.4. */
export function instanceName(podName: string, sandboxId: string): string {
  const plain = (text: string): string => text.toLowerCase().replace(/[^a-z0-9-]/g, "-");
  return `podvm-${plain(podName).slice(0, MAX_NAME_BYTES - FRAME_BYTES)}-${plain(sandboxId).slice(0, 8)}`;
}

/** What specs have in common. */
export interface SpecSource {
  readonly cluster: string;
  readonly defaults: VmDefaults;
  /** Of the reference image; VMs with volumes of their own are told of them. */
  readonly userData: (volumes?: readonly string[]) => Uint8Array;
  /** Knows the user-data of VMs that have one of their own. */
  readonly stock: { userDataOf(record: SandboxRecord): Uint8Array | undefined };
}

/** A record's spec with the user-data that its VM gets: the stock image has one of the pod's own. */
export function specOf(record: SandboxRecord, intent: CreateIntent, deps: SpecSource): InstanceSpec {
  return instanceSpec(record, intent, {
    ...deps,
    userData: deps.stock.userDataOf(record) ?? deps.userData(record.request.volumes),
  });
}

/** The same record gives the same spec, so that a repeated create call asks for the same instance. */
export function instanceSpec(
  record: SandboxRecord,
  intent: CreateIntent,
  options: { readonly cluster: string; readonly defaults: VmDefaults; readonly userData: Uint8Array },
): InstanceSpec {
  const { vcpus, memoryMiB, gpus, instanceType, image, volumes } = record.request;
  const { cluster, defaults, userData } = options;
  return {
    name: intent.name,
    tags: { cluster, owner: "kata-remote", createOperation: intent.createOperation, created: intent.created },
    sandboxId: record.id,
    vcpus: vcpus > 0 ? Math.ceil(vcpus) : defaults.vcpus,
    memoryMiB: (memoryMiB > 0 ? memoryMiB : defaults.memoryMiB) + defaults.guestOverheadMiB,
    gpus,
    ...(instanceType === undefined ? {} : { instanceType }),
    ...(image === undefined ? {} : { image }),
    ...(volumes === undefined ? {} : { volumes }),
    userData,
  };
}

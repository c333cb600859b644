import { Fault } from "../../base/fault.ts";
import { checkContainerId } from "../../base/ids.ts";
import type { CreateVMRequest } from "../../gen/hypervisor/hypervisor.ts";

/** What a stock shim asks of a VM. 0 means the adaptor's default. */
export interface StockVmWish {
  readonly id: string;
  readonly pod: { readonly namespace: string; readonly name: string };
  /** "": none. */
  readonly netnsPath: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
  readonly instanceType?: string;
  readonly image?: string;
  /** Plain TOML. */
  readonly initdata?: string;
}

const POD_NAME = "io.kubernetes.cri.sandbox-name";
const POD_NAMESPACE = "io.kubernetes.cri.sandbox-namespace";
const HYPERVISOR = "io.katacontainers.config.hypervisor.";

/**
 * Reads a CreateVM of either stock shim: Go sends whole numbers and "0" for what nobody asked, Rust floats.
 * @throws Fault invalid_argument naming the annotation
 * Source: wire contract §3.2
 */
export function readCreateVm({ id, annotations, networkNamespacePath }: CreateVMRequest): StockVmWish {
  if (id === "") throw new Fault("invalid_argument", "CreateVM has no sandbox id");
  const needed = (key: string): string => {
    const value = annotations[key] ?? "";
    if (value === "") throw new Fault("invalid_argument", `CreateVM of ${id} has no annotation ${key}`);
    return value;
  };
  const optional = (name: string): string | undefined => {
    const value = annotations[HYPERVISOR + name]?.trim() ?? "";
    return value === "" ? undefined : value;
  };
  const number = (name: string): number => {
    const text = optional(name) ?? "0";
    // Number() takes much that is none.
    if (!/^\d+(\.\d+)?$/.test(text))
      throw new Fault("invalid_argument", `annotation ${HYPERVISOR}${name} = "${text}" of ${id} is not a number`);
    return Number(text);
  };
  const [instanceType, image] = [optional("machine_type"), optional("image")];
  const initdata = annotations[`${HYPERVISOR}cc_init_data`] ?? ""; // to the last byte: it is measured
  return {
    id: checkContainerId(id),
    pod: { name: podName(needed(POD_NAME)), namespace: needed(POD_NAMESPACE) },
    netnsPath: networkNamespacePath,
    vcpus: number("default_vcpus"),
    memoryMiB: Math.ceil(number("default_memory")),
    gpus: Math.ceil(number("default_gpus")),
    ...(instanceType === undefined ? {} : { instanceType }),
    ...(image === undefined ? {} : { image }),
    ...(initdata.trim() === "" ? {} : { initdata }),
  };
}

/** CRI-O's `k8s_<pod>_<namespace>_<uid>_<attempt>` has the pod's name in its second part. */
function podName(name: string): string {
  const [prefix, pod, namespace] = name.split("_");
  return prefix === "k8s" && pod !== undefined && namespace !== undefined ? pod : name;
}

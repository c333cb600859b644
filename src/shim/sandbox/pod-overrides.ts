import { Fault } from "../../base/fault.ts";

/** What a pod, or the runtime's options in containerd's configuration, change of the defaults. */
export interface PodOverrides {
  readonly hypervisor?: string;
  readonly instanceType?: string;
  readonly image?: string;
  /** Added to the sum of the containers' limits. */
  readonly vcpus?: number;
  readonly memoryMiB?: number;
  readonly gpus?: number;
  readonly createContainerTimeoutMs?: number;
  /** Whether the pod VM pulls its images. */
  readonly guestPull?: boolean;
  /** The runtime class is a confidential one; no annotation says so. */
  readonly confidential?: boolean;
  /** The runtime class permits the node's root file systems in confidential pods; no annotation says so. */
  readonly allowNodeRootfs?: boolean;
  /** Rego text for the guest's agent. */
  readonly policy?: string;
  /** From StartVM to a known address; no annotation says so. */
  readonly startVmTimeoutMs?: number;
  /** Whether seccomp profiles are passed on; no annotation says so. */
  readonly seccomp?: boolean;
  /** What pods may set of the hypervisor; no annotation says so. */
  readonly gate?: AnnotationGate;
}

/** Which `io.katacontainers.config.hypervisor.` annotations a pod may have. */
export interface AnnotationGate {
  /** Key and file of the list. */
  readonly where: string;
  /** @param name without the prefix */
  readonly allows: (name: string) => boolean;
}

/** Backends that there are, or are to be; a node has some of them configured. */
export const HYPERVISORS = ["remote", "qemu", "cloud-hypervisor", "firecracker"] as const;

const PREFIX = "io.katacontainers.config.";
/** Only these are gated. Source: reference §4.7. */
const GATED = "hypervisor.";

type Reader = (value: string, key: string) => PodOverrides;

/** Annotations that have a meaning here. Any other below the prefix is refused, so that none is ignored silently. */
const READERS: Readonly<Record<string, Reader>> = {
  "runtime.hypervisor_name": (v, k) => ({
    hypervisor: oneOf(v, k, HYPERVISORS),
  }),
  "runtime.create_container_timeout": (v, k) => ({
    createContainerTimeoutMs: 1_000 * number(v, k, "seconds", 1, 86_400, true),
  }),
  "runtime.experimental_force_guest_pull": (v, k) => ({ guestPull: oneOf(v, k, ["true", "false"]) === "true" }),
  "hypervisor.machine_type": (v, k) => ({
    instanceType: plain(v, k, "an instance type of the provider, such as m6a.large"),
  }),
  "hypervisor.image": (v, k) => ({ image: plain(v, k, "the name of a pod VM image") }),
  "hypervisor.default_vcpus": (v, k) => ({ vcpus: number(v, k, "virtual CPUs", 0.01, 1_024, false) }),
  "hypervisor.default_memory": (v, k) => ({ memoryMiB: number(v, k, "MiB", 1, 16 * 1_024 * 1_024, true) }),
  "hypervisor.default_gpus": (v, k) => ({ gpus: number(v, k, "GPUs", 0, 64, true) }),
  "agent.policy": (v, k) => ({ policy: base64(v, k) }),
};

/**
 * Reads the `io.katacontainers.config.*` annotations of a pod.
 * @throws Fault invalid_argument for a wrong value, failed_precondition for an annotation without a meaning here or one
 * that the gate keeps out
 */
export function podOverrides(annotations: Readonly<Record<string, string>>, gate: AnnotationGate): PodOverrides {
  let result: PodOverrides = {};
  for (const [key, value] of Object.entries(annotations)) {
    if (!key.startsWith(PREFIX)) continue;
    const reader = READERS[key.slice(PREFIX.length)];
    if (reader === undefined) {
      const known = Object.keys(READERS).map((k) => PREFIX + k);
      throw new Fault(
        "failed_precondition",
        `annotation ${key} = "${value}" is not supported; remove it (supported: ${known.join(", ")})`,
      );
    }
    const name = key.slice(PREFIX.length + GATED.length);
    if (key.startsWith(PREFIX + GATED) && !gate.allows(name)) {
      throw new Fault(
        "failed_precondition",
        `annotation ${key} = "${value}" is not enabled; remove it, or add "${name}" to ${gate.where}`,
      );
    }
    result = { ...result, ...reader(value.trim(), key) };
  }
  return result;
}

function wrong(key: string, value: string, expected: string): Fault {
  return new Fault("invalid_argument", `annotation ${key} = "${value}" is not valid: ${expected} is expected`);
}

function oneOf(value: string, key: string, allowed: readonly string[]): string {
  if (!allowed.includes(value)) throw wrong(key, value, allowed.map((a) => `"${a}"`).join(" or "));
  return value;
}

function number(value: string, key: string, unit: string, min: number, max: number, whole: boolean): number {
  const n = /^\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
  if (!(n >= min && n <= max) || (whole && !Number.isInteger(n))) {
    throw wrong(key, value, `${whole ? "a whole number" : "a number"} of ${unit} from ${min} to ${max}`);
  }
  return n;
}

function plain(value: string, key: string, what: string): string {
  if (!/^[\w][\w./:@-]{0,254}$/.test(value)) throw wrong(key, value, what);
  return value;
}

function base64(value: string, key: string): string {
  const bytes = Buffer.from(value, "base64");
  const same = bytes.toString("base64").replace(/=+$/, "") === value.replace(/\s+/g, "").replace(/=+$/, "");
  if (bytes.length === 0 || !same) throw wrong(key, value.slice(0, 40), "a policy in base64");
  return bytes.toString("utf8");
}

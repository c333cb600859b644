import { Fault } from "../../base/fault.ts";
import { isTable, type TomlTable } from "./toml-file.ts";

type Table = Readonly<TomlTable>;

export interface KataFile {
  /** The keys that mean something here, as a runtime file of ours has them. */
  readonly own: Table;
  /** Full names of the others, in the file's order. */
  readonly others: readonly string[];
}

/** Kata's sections of a hypervisor, and the backend here. Source: reference §4.4 – 4.6. */
const BACKENDS: Readonly<Record<string, string>> = {
  remote: "remote",
  qemu: "qemu",
  clh: "cloud-hypervisor",
  "cloud-hypervisor": "cloud-hypervisor",
  firecracker: "firecracker",
};
const HYPERVISOR_KEYS = new Set([
  ...["default_vcpus", "default_memory", "enable_annotations", "confidential_guest", "remote_hypervisor_timeout"],
  ...["machine_type", "image"],
]);
/** Of a local hypervisor they name QEMU's machine and Kata's image file: a pod VM here has its own. */
const REMOTE_ONLY = new Set(["machine_type", "image"]);
const RUNTIME_KEYS = new Set([
  ...["create_container_timeout", "experimental_force_guest_pull", "allow_node_rootfs", "disable_guest_seccomp"],
]);
/** "The default", or "as many as the host has", which is no number here. */
const ZERO_IS_DEFAULT = new Set(["default_vcpus", "default_memory"]);

/** Whether a TOML table is Kata's configuration.toml: its sections are tables. */
export function isKataFile(table: Table): boolean {
  return ["hypervisor", "runtime", "agent", "factory"].some((name) => isTable(table[name]));
}

/**
 * Reads what applies here from Kata's configuration, written for any of its hypervisors.
 * @throws Fault invalid_argument naming the key and the file
 */
export function readKataFile(table: Table, origin: string): KataFile {
  const own: Record<string, unknown> = {};
  const others: string[] = [];
  const runtime = section(table, "runtime", origin);
  const hypervisors = section(table, "hypervisor", origin);
  const chosen = chooseHypervisor(hypervisors, runtime.hypervisor_name, origin);
  if (chosen !== undefined) own.hypervisor = BACKENDS[chosen];
  for (const [name, content] of Object.entries(hypervisors)) {
    for (const [key, value] of Object.entries(isTable(content) ? content : { "": content })) {
      const applies = name === chosen && HYPERVISOR_KEYS.has(key) && !(REMOTE_ONLY.has(key) && name !== "remote");
      if (!applies) others.push(`hypervisor.${name}.${key}`);
      else if (!(ZERO_IS_DEFAULT.has(key) && typeof value === "number" && value <= 0)) own[key] = value;
    }
  }
  for (const [key, value] of Object.entries(runtime)) {
    if (RUNTIME_KEYS.has(key)) own[key] = value;
    else if (key !== "hypervisor_name") others.push(`runtime.${key}`);
  }
  for (const [name, content] of Object.entries(section(table, "agent", origin))) {
    for (const [key, value] of Object.entries(isTable(content) ? content : {})) {
      // Where the Rust runtime has it.
      if (key === "create_container_timeout") own[key] = value;
      else others.push(`agent.${name}.${key}`);
    }
  }
  for (const [name, content] of Object.entries(table)) {
    if (["hypervisor", "runtime", "agent"].includes(name)) continue;
    others.push(...(isTable(content) ? Object.keys(content).map((key) => `${name}.${key}`) : [name]));
  }
  return { own, others };
}

function chooseHypervisor(hypervisors: Table, named: unknown, origin: string): string | undefined {
  const names = Object.keys(hypervisors);
  const chosen = typeof named === "string" && named !== "" ? named : names[0];
  if (chosen === undefined) return undefined;
  if (BACKENDS[chosen] === undefined) {
    const known = Object.keys(BACKENDS).join(", ");
    throw new Fault("invalid_argument", `${origin}: hypervisor "${chosen}" is not known here; choose one of ${known}`);
  }
  return chosen;
}

function section(table: Table, name: string, origin: string): Table {
  const value = table[name] ?? {};
  if (isTable(value)) return value;
  throw new Fault(
    "invalid_argument",
    `${origin}: ${name} must be a section ([${name}]), it is ${JSON.stringify(value)}`,
  );
}

import { readFile } from "node:fs/promises";
import { parse as parseToml, TomlError } from "smol-toml";
import { type Static, Type } from "typebox";
import { parseConfig } from "../../base/config.ts";
import { Fault } from "../../base/fault.ts";
import type { Any } from "../../gen/google/protobuf/any.ts";
import { Options } from "../../gen/runtimeoptions/v1/options.ts";
import type { PodOverrides } from "../sandbox/index.ts";

/** A runtime's file, named by ConfigPath in containerd's configuration: TOML, defaults for all its pods. */
export const RuntimeFile = Type.Object(
  {
    hypervisor: Type.Optional(Type.Union([Type.Literal("remote"), Type.Literal("qemu")])),
    machine_type: Type.Optional(Type.String({ minLength: 1 })),
    image: Type.Optional(Type.String({ minLength: 1 })),
    default_vcpus: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 1_024 })),
    default_memory: Type.Optional(Type.Integer({ minimum: 1, description: "MiB" })),
    experimental_force_guest_pull: Type.Optional(Type.Boolean({ description: "Whether pod VMs pull their images" })),
    confidential_guest: Type.Optional(Type.Boolean({ description: "Pods pull their images unless that is allowed" })),
    allow_node_rootfs: Type.Optional(
      Type.Boolean({ description: "Confidential pods may have the node's root file systems when they ask for them" }),
    ),
    create_container_timeout: Type.Optional(Type.Integer({ minimum: 1, description: "seconds" })),
  },
  { additionalProperties: false },
);

/** Source: containerd pkg/cri (runtimeoptions), older spelling until 1.6; ctr and docker send runc's. */
const RUNTIME_OPTIONS = new Set(["runtimeoptions.v1.Options", "cri.runtimeoptions.v1.Options"]);
const RUNC_OPTIONS = "containerd.runc.v1.Options";

/**
 * Reads the options of a Create request. runc's are accepted and mean nothing here (README).
 * @throws Fault invalid_argument naming the type, or the file and the key in it
 */
export async function readRuntimeOptions(options: Any | undefined): Promise<PodOverrides> {
  const type = (options?.typeUrl ?? "").replace(/^.*\//, "");
  if (options === undefined || type === "" || type === RUNC_OPTIONS) return {};
  if (!RUNTIME_OPTIONS.has(type)) {
    const known = [...RUNTIME_OPTIONS, RUNC_OPTIONS].join(", ");
    throw new Fault(
      "invalid_argument",
      `runtime options of type "${type}" are not known (${known} are); correct the options of this runtime in containerd's configuration`,
    );
  }
  let decoded: Options;
  try {
    decoded = Options.decode(options.value);
  } catch (cause) {
    throw new Fault("invalid_argument", `runtime options of type "${type}" cannot be decoded`, {}, { cause });
  }
  if (decoded.configPath !== "") return overrides(await readText(decoded.configPath), decoded.configPath);
  return decoded.configBody.length === 0
    ? {}
    : overrides(decoded.configBody.toString("utf8"), "runtime options (config_body)");
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new Fault(
      "invalid_argument",
      `runtime option ConfigPath = "${path}" cannot be read; correct it in containerd's configuration`,
      {},
      { cause },
    );
  }
}

function overrides(text: string, origin: string): PodOverrides {
  let table: unknown;
  try {
    table = parseToml(text);
  } catch (cause) {
    const where = cause instanceof TomlError ? ` (line ${cause.line})` : "";
    throw new Fault(
      "invalid_argument",
      `${origin} is not TOML${where}; it must be a kata-remote runtime file`,
      {},
      { cause },
    );
  }
  const file: Static<typeof RuntimeFile> = parseConfig(RuntimeFile, table, origin);
  return {
    ...(file.hypervisor === undefined ? {} : { hypervisor: file.hypervisor }),
    ...(file.machine_type === undefined ? {} : { instanceType: file.machine_type }),
    ...(file.image === undefined ? {} : { image: file.image }),
    ...(file.default_vcpus === undefined ? {} : { vcpus: file.default_vcpus }),
    ...(file.default_memory === undefined ? {} : { memoryMiB: file.default_memory }),
    ...(file.experimental_force_guest_pull === undefined ? {} : { guestPull: file.experimental_force_guest_pull }),
    ...(file.confidential_guest === undefined ? {} : { confidential: file.confidential_guest }),
    ...(file.allow_node_rootfs === undefined ? {} : { allowNodeRootfs: file.allow_node_rootfs }),
    ...(file.create_container_timeout === undefined
      ? {}
      : { createContainerTimeoutMs: file.create_container_timeout * 1_000 }),
  };
}

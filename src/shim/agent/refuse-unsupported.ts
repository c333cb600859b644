import { Fault, type FaultCode } from "../../base/fault.ts";
import type { OciSpec } from "./oci-spec.ts";

/** Something a spec asks for that a pod VM cannot give. */
export interface Refusal {
  readonly field: string;
  readonly value: unknown;
  /** Why, and what to do. */
  readonly remedy: string;
}

/** Devices that exist in every guest under the same numbers: the guest's own is what the container gets. */
export const GUEST_DEVICES: ReadonlySet<string> = new Set([
  "/dev/null",
  "/dev/zero",
  "/dev/full",
  "/dev/random",
  "/dev/urandom",
  "/dev/tty",
  "/dev/ptmx",
  "/dev/console",
  "/dev/fuse",
  "/dev/net/tun",
]);

const KNOWN_APPARMOR = new Set([
  "",
  "unconfined",
  "cri-containerd.apparmor.d",
  "containerd-default",
  "docker-default",
  "nerdctl-default",
]);
const SHARED = new Set(["shared", "rshared"]);

/**
 * Everything in a spec that would be lost or mean something else in a VM. Mount sources are looked at by planMounts.
 * Values without an effect inside the guest that are dropped on purpose are listed in src/shim/README.md instead.
 */
export function refusals(spec: OciSpec): readonly Refusal[] {
  return [...namespaces(spec), ...security(spec), ...devices(spec), ...propagation(spec), ...unknownToGuest(spec)];
}

/** @throws Fault failed_precondition that names every field, its value and the remedy */
export function refuseUnsupported(spec: OciSpec, origin: string): void {
  const found = refusals(spec);
  if (found.length > 0) throw refusalFault(found, origin);
}

/** More are counted only: a privileged container names every device of the node. */
const MAX_NAMED = 4;

/** One error for several refusals: `config.json: linux.devices[0].path = "…": why and what to do`. */
export function refusalFault(
  found: readonly Refusal[],
  origin: string,
  code: FaultCode = "failed_precondition",
): Fault {
  const list = found.slice(0, MAX_NAMED).map((r) => `${r.field} = ${show(r.value)}: ${r.remedy}`);
  if (found.length > MAX_NAMED) list.push(`and ${found.length - MAX_NAMED} more, to ${found.at(-1)?.field}`);
  return new Fault(code, `${origin}: ${list.join("; ")}`, { field: found[0]?.field });
}

function show(value: unknown): string {
  const text = JSON.stringify(value, (_k, v: unknown) => (typeof v === "bigint" ? String(v) : v)) ?? "none";
  return text.length > 120 ? `${text.slice(0, 120)}…` : text;
}

function namespaces(spec: OciSpec): Refusal[] {
  const entries = spec.linux?.namespaces ?? [];
  const types = entries.map((n) => n.type);
  const missing = (type: string, setting: string, what: string): Refusal[] =>
    types.includes(type)
      ? []
      : [
          {
            field: "linux.namespaces",
            value: types,
            remedy: `no "${type}" entry (${setting}) asks for ${what}, which a pod VM does not have; remove that setting`,
          },
        ];
  return [
    ...missing("network", "hostNetwork: true or ctr --net-host", "the node's network"),
    ...missing("pid", "hostPID: true", "the node's processes"),
    ...missing("ipc", "hostIPC: true", "the node's System V IPC"),
    // hostNetwork takes the host's UTS namespace along.
    ...(types.includes("network") ? missing("uts", "the host's UTS namespace", "the node's host name") : []),
    ...missing("mount", "the host's mount namespace", "the node's mounts"),
    ...entries.flatMap((n, i): Refusal[] =>
      n.type === "user"
        ? [
            {
              field: `linux.namespaces[${i}]`,
              value: n,
              remedy:
                "user namespaces with ids of the node are not supported: the VM separates ids already; set hostUsers: true or leave it out",
            },
          ]
        : [],
    ),
  ];
}

function security(spec: OciSpec): Refusal[] {
  const found: Refusal[] = [];
  const profile = spec.process.apparmorProfile ?? "";
  if (!KNOWN_APPARMOR.has(profile)) {
    found.push({
      field: "process.apparmorProfile",
      value: profile,
      remedy: "the guest has no AppArmor profiles of the node; use RuntimeDefault or Unconfined",
    });
  }
  for (const key of ["uidMappings", "gidMappings"]) {
    const value = extra(spec.linux, key);
    if (Array.isArray(value) && value.length > 0) {
      found.push({
        field: `linux.${key}`,
        value,
        remedy: "id mappings of the node mean nothing in the VM; leave user namespaces out",
      });
    }
  }
  const listener = extra(spec.linux?.seccomp, "listenerPath");
  if (isSet(listener)) {
    found.push({
      field: "linux.seccomp.listenerPath",
      value: listener,
      remedy: "a seccomp agent of the node cannot be reached from the VM; remove SCMP_ACT_NOTIFY",
    });
  }
  return found;
}

function devices(spec: OciSpec): Refusal[] {
  return (spec.linux?.devices ?? []).flatMap((d, i): Refusal[] =>
    GUEST_DEVICES.has(d.path)
      ? []
      : [
          {
            field: `linux.devices[${i}].path`,
            value: d.path,
            remedy:
              "devices of the node are not in the VM; remove it, for privileged pods set privileged_without_host_devices = true at the runtime in containerd's configuration",
          },
        ],
  );
}

function propagation(spec: OciSpec): Refusal[] {
  const found: Refusal[] = [];
  const root = spec.linux?.rootfsPropagation ?? "";
  if (SHARED.has(root)) {
    found.push({
      field: "linux.rootfsPropagation",
      value: root,
      remedy: "mounts made in the VM cannot reach the node; use private or slave",
    });
  }
  for (const [i, mount] of (spec.mounts ?? []).entries()) {
    const option = mount.options?.find((o) => SHARED.has(o));
    if (option !== undefined) {
      found.push({
        field: `mounts[${i}].options`,
        value: option,
        remedy: `mounts made in the VM below ${mount.destination} cannot reach the node; use mountPropagation None or HostToContainer`,
      });
    }
    for (const key of ["uidMappings", "gidMappings"]) {
      const value = extra(mount, key);
      if (Array.isArray(value) && value.length > 0) {
        found.push({
          field: `mounts[${i}].${key}`,
          value,
          remedy: "id-mapped mounts are not supported; leave user namespaces out",
        });
      }
    }
  }
  return found;
}

/** Fields of the runtime spec for which the agent protocol has no place. */
function unknownToGuest(spec: OciSpec): Refusal[] {
  const found: Refusal[] = [];
  const check = (holder: unknown, path: string, keys: readonly string[], remedy: string): void => {
    for (const key of keys) {
      const value = extra(holder, key);
      if (isSet(value)) found.push({ field: path === "" ? key : `${path}.${key}`, value, remedy });
    }
  };
  const noPlace = "cannot be carried into the VM; remove it";
  check(spec, "", ["windows", "solaris", "vm", "zos", "domainname"], noPlace);
  check(spec.process, "process", ["commandLine", "ioPriority", "scheduler", "execCPUAffinity"], noPlace);
  check(spec.linux, "linux", ["timeOffsets", "intelRdt", "netDevices", "memoryPolicy"], noPlace);
  const personality = extra(spec.linux, "personality") as { domain?: string } | undefined;
  if (personality !== undefined && (personality.domain !== "LINUX" || isSet(extra(personality, "flags")))) {
    found.push({ field: "linux.personality", value: personality, remedy: noPlace });
  }
  const hooks = (extra(spec, "hooks") ?? {}) as Record<string, unknown>;
  for (const [stage, list] of Object.entries(hooks)) {
    if (!isSet(list)) continue;
    found.push({
      field: `hooks.${stage}`,
      value: list,
      remedy: "hooks of the node would run outside the VM and are refused; remove them (nerdctl: use ctr or CRI)",
    });
  }
  return found;
}

function extra(holder: unknown, key: string): unknown {
  return (holder as Record<string, unknown> | undefined)?.[key];
}

function isSet(value: unknown): boolean {
  if (value === undefined || value === "" || value === false) return false;
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return true;
}

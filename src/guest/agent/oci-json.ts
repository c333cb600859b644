import { Fault } from "../../base/fault.ts";
import type { Hook, Hooks, Linux, LinuxResources, LinuxSeccomp, Process, Spec } from "../../gen/agent/oci.ts";

/** Version of the runtime specification that this translation writes. */
const OCI_VERSION = "1.0.2";

/** A JSON document of the OCI runtime specification; integers may be bigints. */
export type OciJson = { readonly [key: string]: unknown };

/** What the guest decides about a container, whatever the request says. */
export interface GuestPlacement {
  readonly rootPath: string;
  readonly cgroupsPath: string;
  /** Paths of the namespaces that the pod shares; the PID namespace only when it is shared. */
  readonly namespaces: { readonly network: string; readonly ipc: string; readonly uts: string; readonly pid?: string };
  /** The pod has a host name already; a container does not change it. */
  readonly keepHostname: boolean;
}

/** Text of a document; 64-bit numbers are kept exact. */
export function ociText(document: OciJson): string {
  const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
  return JSON.stringify(document, (_key, value: unknown) =>
    typeof value === "bigint" ? rawJSON(String(value)) : value,
  );
}

/**
 * config.json for the OCI runtime from the spec as the agent protocol carries it. In proto3 zero means "not set".
 * @throws Fault invalid_argument naming the field that the guest cannot honour
 */
export function specToOci(spec: Spec, placement: GuestPlacement): OciJson {
  if (spec.Process === undefined) throw new Fault("invalid_argument", "the container's spec has no process");
  const linux = spec.Linux;
  return compact({
    // The document is ours, whatever version the request was written in: Debian's crun refuses a newer one by its number.
    ociVersion: OCI_VERSION,
    process: processToOci(spec.Process),
    root: { path: placement.rootPath, readonly: spec.Root?.Readonly ?? false },
    hostname: placement.keepHostname ? undefined : spec.Hostname,
    mounts: mountsToOci(spec),
    hooks: spec.Hooks && hooksToOci(spec.Hooks),
    annotations: spec.Annotations,
    linux: linuxToOci(linux, placement),
  });
}

/** A process of a container; labels are left out, as the guest has neither AppArmor profiles nor an SELinux policy. */
export function processToOci(process: Process): OciJson {
  if (process.Args.length === 0) throw new Fault("invalid_argument", "the process has no args");
  const user = process.User;
  const capabilities = process.Capabilities;
  const size = process.ConsoleSize;
  return {
    ...compact({
      terminal: process.Terminal,
      consoleSize: size && (size.Height > 0 || size.Width > 0) ? { height: size.Height, width: size.Width } : undefined,
      env: process.Env,
      cwd: process.Cwd === "" ? "/" : process.Cwd,
      rlimits: process.Rlimits.map((r) => ({ type: r.Type, hard: r.Hard, soft: r.Soft })),
      noNewPrivileges: process.NoNewPrivileges,
    }),
    args: process.Args,
    user: { uid: user?.UID ?? 0, gid: user?.GID ?? 0, additionalGids: user?.AdditionalGids ?? [] },
    capabilities: {
      bounding: capabilities?.Bounding ?? [],
      effective: capabilities?.Effective ?? [],
      inheritable: capabilities?.Inheritable ?? [],
      permitted: capabilities?.Permitted ?? [],
      ambient: capabilities?.Ambient ?? [],
    },
    oomScoreAdj: Number(process.OOMScoreAdj), // always: the agent's own must not be inherited
  };
}

/** Resources for config.json and for `crun update`. */
export function resourcesToOci(resources: LinuxResources): OciJson {
  const { Memory: memory, CPU: cpu, Pids: pids, BlockIO: io } = resources;
  if (memory?.DisableOOMKiller) {
    throw new Fault(
      "invalid_argument",
      "linux.resources.memory.disableOOMKiller: cgroup v2 has no such thing; leave it out",
    );
  }
  return compact({
    devices: resources.Devices.map((d) =>
      compact(
        {
          type: d.Type,
          access: d.Access,
          major: deviceNumber(d.Major),
          minor: deviceNumber(d.Minor),
          allow: d.Allow,
        },
        ["allow"],
      ),
    ),
    memory:
      memory &&
      compact({
        limit: memory.Limit,
        reservation: memory.Reservation,
        swap: memory.Swap,
      }),
    cpu: cpu && compact({ shares: cpu.Shares, quota: cpu.Quota, period: cpu.Period, cpus: cpu.Cpus, mems: cpu.Mems }),
    pids: pids && compact({ limit: pids.Limit }),
    blockIO:
      io &&
      compact({
        weight: io.Weight,
        weightDevice: io.WeightDevice.map((d) => ({ major: d.Major, minor: d.Minor, weight: d.Weight })),
        throttleReadBpsDevice: io.ThrottleReadBpsDevice.map(throttle),
        throttleWriteBpsDevice: io.ThrottleWriteBpsDevice.map(throttle),
        throttleReadIOPSDevice: io.ThrottleReadIOPSDevice.map(throttle),
        throttleWriteIOPSDevice: io.ThrottleWriteIOPSDevice.map(throttle),
      }),
    hugepageLimits: resources.HugepageLimits.map((h) => ({ pageSize: h.Pagesize, limit: h.Limit })),
  });
}

function throttle(d: { readonly Major: bigint; readonly Minor: bigint; readonly Rate: bigint }): OciJson {
  return { major: d.Major, minor: d.Minor, rate: d.Rate };
}

/** -1 is "any", which the OCI text says by leaving it out; so is 0 here, since no device that is ruled has it. */
function deviceNumber(n: bigint): bigint | undefined {
  return n <= 0n ? undefined : n;
}

function linuxToOci(linux: Linux | undefined, placement: GuestPlacement): OciJson {
  const resources = linux?.Resources ? resourcesToOci(linux.Resources) : {};
  // Shims leave out the device rules: without any, a container with CAP_MKNOD could open the guest's disk.
  const devices = (resources.devices as unknown[] | undefined) ?? [{ allow: false, access: "rwm" }];
  return compact({
    uidMappings: linux?.UIDMappings.map(mapping),
    gidMappings: linux?.GIDMappings.map(mapping),
    sysctl: linux?.Sysctl,
    resources: { ...resources, devices },
    cgroupsPath: placement.cgroupsPath,
    namespaces: namespacesOf(linux, placement),
    devices: linux?.Devices.map((d) =>
      compact(
        { path: d.Path, type: d.Type, major: d.Major, minor: d.Minor, fileMode: d.FileMode, uid: d.UID, gid: d.GID },
        ["major", "minor"],
      ),
    ),
    seccomp: linux?.Seccomp && seccompToOci(linux.Seccomp),
    rootfsPropagation: linux?.RootfsPropagation,
    maskedPaths: linux?.MaskedPaths,
    readonlyPaths: linux?.ReadonlyPaths,
  });
}

function namespacesOf(linux: Linux | undefined, { namespaces: shared }: GuestPlacement): OciJson[] {
  const asked = linux?.Namespaces ?? [];
  const network = asked.find((n) => n.Type === "network")?.Path;
  const user = asked.some((n) => n.Type === "user");
  return [
    { type: "mount" },
    { type: "cgroup" },
    // Some shims drop the PID namespace from the spec; a container never gets the guest's own.
    shared.pid === undefined ? { type: "pid" } : { type: "pid", path: shared.pid },
    { type: "network", path: network ? network : shared.network },
    { type: "ipc", path: shared.ipc },
    { type: "uts", path: shared.uts },
    ...(user ? [{ type: "user" }] : []),
  ];
}

function mapping(m: { readonly HostID: number; readonly ContainerID: number; readonly Size: number }): OciJson {
  return { hostID: m.HostID, containerID: m.ContainerID, size: m.Size };
}

function mountsToOci(spec: Spec): OciJson[] {
  const mounts = spec.Mounts.map((m) =>
    compact({ destination: m.destination, type: m.type, source: m.source, options: m.options }),
  );
  // Without /proc the runtime's own start protocol fails, and so does nearly every program.
  const proc = { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] };
  return spec.Mounts.some((m) => m.destination === "/proc") ? mounts : [proc, ...mounts];
}

function hooksToOci(hooks: Hooks): OciJson {
  const list = (of: readonly Hook[]): OciJson[] =>
    of.map((h) => compact({ path: h.Path, args: h.Args, env: h.Env, timeout: h.Timeout }));
  return compact({
    prestart: list(hooks.Prestart),
    createRuntime: list(hooks.CreateRuntime),
    createContainer: list(hooks.CreateContainer),
    startContainer: list(hooks.StartContainer),
    poststart: list(hooks.Poststart),
    poststop: list(hooks.Poststop),
  });
}

function seccompToOci(seccomp: LinuxSeccomp): OciJson {
  return compact({
    defaultAction: seccomp.DefaultAction,
    architectures: seccomp.Architectures,
    flags: seccomp.Flags,
    syscalls: seccomp.Syscalls.map((s) =>
      compact({
        names: s.Names,
        action: s.Action,
        errnoRet: s.errnoret,
        args: s.Args.map((a) => ({ index: a.Index, value: a.Value, valueTwo: a.ValueTwo, op: a.Op })),
      }),
    ),
  });
}

/** Leaves out what proto3 cannot tell from "not set": undefined, "", 0, false, empty lists and maps; except `keep`. */
function compact(fields: Record<string, unknown>, keep: readonly string[] = []): OciJson {
  return Object.fromEntries(
    Object.entries(fields).filter(([key, value]) => {
      if (keep.includes(key)) return value !== undefined;
      if (value === undefined || value === "" || value === 0 || value === 0n || value === false) return false;
      if (Array.isArray(value)) return value.length > 0;
      return typeof value !== "object" || value === null || Object.keys(value).length > 0;
    }),
  );
}

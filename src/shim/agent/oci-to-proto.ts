import { LinuxDevice, LinuxResources, LinuxSeccomp, Process } from "../../gen/agent/oci.ts";
import type { OciDevice, OciProcess, OciResources, OciSeccomp } from "./oci-spec.ts";

/** A process as ExecProcess and CreateContainer carry it. Capabilities is always there: the stock agent crashes without. */
export function processToProto(p: OciProcess): Process {
  return Process.fromPartial({
    Terminal: p.terminal ?? false,
    ConsoleSize: p.consoleSize === undefined ? undefined : { Height: p.consoleSize.height, Width: p.consoleSize.width },
    User: {
      UID: p.user?.uid ?? 0,
      GID: p.user?.gid ?? 0,
      AdditionalGids: p.user?.additionalGids ?? [],
      Username: p.user?.username ?? "",
    },
    Args: p.args,
    Env: p.env ?? [],
    Cwd: p.cwd,
    Capabilities: {
      Bounding: p.capabilities?.bounding ?? [],
      Effective: p.capabilities?.effective ?? [],
      Inheritable: p.capabilities?.inheritable ?? [],
      Permitted: p.capabilities?.permitted ?? [],
      Ambient: p.capabilities?.ambient ?? [],
    },
    Rlimits: (p.rlimits ?? []).map((r) => ({ Type: r.type, Hard: unsigned(r.hard), Soft: unsigned(r.soft) })),
    NoNewPrivileges: p.noNewPrivileges ?? false,
    // AppArmor and SELinux of the node have no profile in the guest: the VM is the boundary.
    ApparmorProfile: "",
    OOMScoreAdj: BigInt(p.oomScoreAdj ?? 0),
    SelinuxLabel: "",
  });
}

/**
 * Resources that mean something in the guest: memory, CPU share and quota, huge pages. Devices, pids, block I/O and
 * network are left to the VM, CPU and memory node sets name CPUs of the node.
 * Source: kata 4.1 constrainGRPCSpec; reference §2.5.
 */
export function resourcesToProto(r: OciResources): LinuxResources {
  const { memory, cpu } = r;
  return LinuxResources.fromPartial({
    Memory:
      memory === undefined
        ? undefined
        : {
            Limit: big(memory.limit),
            Reservation: big(memory.reservation),
            Swap: big(memory.swap),
            Kernel: big(memory.kernel),
            KernelTCP: big(memory.kernelTCP),
            Swappiness: unsigned(memory.swappiness),
            DisableOOMKiller: memory.disableOOMKiller ?? false,
          },
    CPU:
      cpu === undefined
        ? undefined
        : {
            Shares: unsigned(cpu.shares),
            Quota: big(cpu.quota),
            Period: unsigned(cpu.period),
            RealtimeRuntime: big(cpu.realtimeRuntime),
            RealtimePeriod: unsigned(cpu.realtimePeriod),
            Cpus: "",
            Mems: "",
          },
    // CRI names every page size of the node with limit 0; a guest without huge pages would refuse those.
    HugepageLimits: (r.hugepageLimits ?? [])
      .filter((h) => unsigned(h.limit) !== 0n)
      .map((h) => ({ Pagesize: h.pageSize, Limit: unsigned(h.limit) })),
  });
}

export function deviceToProto(d: OciDevice): LinuxDevice {
  return LinuxDevice.fromPartial({
    Path: d.path,
    Type: d.type,
    Major: big(d.major),
    Minor: big(d.minor),
    FileMode: d.fileMode ?? 0o666,
    UID: d.uid ?? 0,
    GID: d.gid ?? 0,
  });
}

export function seccompToProto(s: OciSeccomp): LinuxSeccomp {
  return LinuxSeccomp.fromPartial({
    DefaultAction: s.defaultAction,
    Architectures: s.architectures ?? [],
    Flags: s.flags ?? [],
    Syscalls: (s.syscalls ?? []).map((c) => ({
      Names: c.names,
      Action: c.action,
      errnoret: c.errnoRet,
      Args: (c.args ?? []).map((a) => ({
        Index: unsigned(a.index),
        Value: unsigned(a.value),
        ValueTwo: unsigned(a.valueTwo),
        Op: a.op,
      })),
    })),
  });
}

function big(value: number | bigint | undefined): bigint {
  return BigInt.asIntN(64, BigInt(value ?? 0));
}

function unsigned(value: number | bigint | undefined): bigint {
  return BigInt.asUintN(64, BigInt(value ?? 0));
}

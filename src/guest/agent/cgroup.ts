import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { BlkioStatsEntry, CgroupStats } from "../../gen/agent/agent.ts";

const ROOT = "/sys/fs/cgroup";
/** What "no limit" looks like to the shims: the largest uint64. */
const NO_LIMIT = 0xffff_ffff_ffff_ffffn;

/** One control group of the guest (cgroup v2), by files alone. */
export class Cgroup {
  readonly #path: string;

  /** @param path below the cgroup root, "/pod/<id>" */
  constructor(path: string, root = ROOT) {
    this.#path = root + path;
  }

  get eventsFile(): string {
    return `${this.#path}/memory.events`;
  }

  /** Kills every process in it at once, forks in flight included. A group that is gone has none. */
  kill(): void {
    try {
      writeFileSync(`${this.#path}/cgroup.kill`, "1");
    } catch (e) {
      if (!isGone(e)) throw e;
    }
  }

  /** Freezes or thaws; resolves when the kernel says that it is done. */
  async setFrozen(frozen: boolean): Promise<void> {
    writeFileSync(`${this.#path}/cgroup.freeze`, frozen ? "1" : "0");
    const done = `frozen ${frozen ? 1 : 0}`;
    for (let i = 0; i < 200; i += 1) {
      if (this.#text("cgroup.events").includes(done)) return;
      await delay(10);
    }
  }

  /** Processes of this group that the OOM killer has taken so far. */
  oomKills(): number {
    return Number(keyed(this.#text("memory.events")).get("oom_kill") ?? 0n);
  }

  stats(): CgroupStats {
    const cpu = keyed(this.#text("cpu.stat"));
    const us = (key: string): bigint => (cpu.get(key) ?? 0n) * 1000n;
    const memory = keyed(this.#text("memory.stat"));
    const events = keyed(this.#text("memory.events"));
    const data = (prefix: string, failcnt: bigint) => ({
      usage: number(this.#text(`${prefix}.current`)),
      maxUsage: number(this.#text(`${prefix}.peak`)),
      failcnt,
      limit: number(this.#text(`${prefix}.max`)),
    });
    return {
      cpuStats: {
        cpuUsage: {
          totalUsage: us("usage_usec"),
          percpuUsage: [],
          usageInKernelmode: us("system_usec"),
          usageInUsermode: us("user_usec"),
        },
        throttlingData: {
          periods: cpu.get("nr_periods") ?? 0n,
          throttledPeriods: cpu.get("nr_throttled") ?? 0n,
          throttledTime: us("throttled_usec"),
        },
      },
      memoryStats: {
        cache: memory.get("file") ?? 0n,
        usage: data("memory", events.get("max") ?? 0n),
        swapUsage: data("memory.swap", 0n),
        kernelUsage: { usage: memory.get("kernel") ?? 0n, maxUsage: 0n, failcnt: 0n, limit: NO_LIMIT },
        useHierarchy: true,
        stats: Object.fromEntries(memory),
      },
      pidsStats: { current: number(this.#text("pids.current")), limit: number(this.#text("pids.max")) },
      blkioStats: this.#blkio(),
      hugetlbStats: {},
    };
  }

  #blkio(): NonNullable<CgroupStats["blkioStats"]> {
    const bytes: BlkioStatsEntry[] = [];
    const operations: BlkioStatsEntry[] = [];
    for (const line of this.#text("io.stat").split("\n")) {
      const device = /^(\d+):(\d+) (.*)$/.exec(line);
      if (device === null) continue;
      const [, major = "0", minor = "0", rest = ""] = device;
      const values = new Map(rest.split(" ").map((pair) => pair.split("=") as [string, string]));
      const entry = (op: string, key: string): BlkioStatsEntry => ({
        major: BigInt(major),
        minor: BigInt(minor),
        op,
        value: BigInt(values.get(key) ?? 0),
      });
      bytes.push(entry("Read", "rbytes"), entry("Write", "wbytes"));
      operations.push(entry("Read", "rios"), entry("Write", "wios"));
    }
    return {
      ioServiceBytesRecursive: bytes,
      ioServicedRecursive: operations,
      ioQueuedRecursive: [],
      ioServiceTimeRecursive: [],
      ioWaitTimeRecursive: [],
      ioMergedRecursive: [],
      ioTimeRecursive: [],
      sectorsRecursive: [],
    };
  }

  /** "" for a file that this kernel or this group lacks. */
  #text(file: string): string {
    try {
      return readFileSync(`${this.#path}/${file}`, "utf8");
    } catch (e) {
      if (isGone(e)) return "";
      throw e;
    }
  }
}

function isGone(e: unknown): boolean {
  const code = (e as NodeJS.ErrnoException).code;
  return code === "ENOENT" || code === "ENODEV";
}

function number(text: string): bigint {
  const word = text.trim();
  if (word === "max") return NO_LIMIT;
  return /^\d+$/.test(word) ? BigInt(word) : 0n;
}

function keyed(text: string): Map<string, bigint> {
  const found = new Map<string, bigint>();
  for (const [, key = "", value = "0"] of text.matchAll(/^(\S+) (\d+)$/gm)) found.set(key, BigInt(value));
  return found;
}

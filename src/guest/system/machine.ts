import { readFileSync } from "node:fs";
import { libc } from "./libc.ts";

/** Source: reboot(2), LINUX_REBOOT_CMD_POWER_OFF as a signed int. */
const POWER_OFF = 0x4321fedc;
const CLOCK_REALTIME = 0;

/** Writes out dirty pages and switches the machine off. Does not return where it works. */
export function powerOff(): void {
  libc("void sync()");
  libc("int reboot(int command)", POWER_OFF);
}

/** Sets the wall clock, ns since the epoch. */
export function setClock(unixNano: bigint): void {
  const time = new BigInt64Array([unixNano / 1_000_000_000n, unixNano % 1_000_000_000n]);
  libc("int clock_settime(int clock, void *time)", CLOCK_REALTIME, time);
}

/** ms since the kernel started. */
export function uptimeMs(): number {
  return Math.round(Number.parseFloat(readFileSync("/proc/uptime", "utf8")) * 1000);
}

/** A value of /proc/meminfo in bytes. */
export function memoryBytes(key: "MemTotal" | "MemAvailable"): bigint {
  const line = new RegExp(`^${key}:\\s+(\\d+) kB$`, "m").exec(readFileSync("/proc/meminfo", "utf8"));
  return BigInt(line?.[1] ?? 0) * 1024n;
}

/** The kernel gives PID 1 4096 open files; a container's process takes three here. Containers inherit it unless told. */
export function raiseFileLimit(): void {
  const RLIMIT_NOFILE = 7;
  const limit = new BigUint64Array([65_536n, 1_048_576n]); // soft, hard
  libc("int setrlimit(int resource, void *limit)", RLIMIT_NOFILE, limit);
}

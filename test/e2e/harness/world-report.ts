import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { withDeadline } from "../../../src/base/call.ts";
import { Qmp } from "../../../src/vmm/index.ts";
import type { ProcessInfo } from "./processes.ts";

const LOG_BYTES = 5000;
const CONSOLE_BYTES = 1500;
const QMP_MS = 5000;

/** The parts of a world that a report shows. */
export interface ReportedWorld {
  readonly folder: string;
  processes(): readonly ProcessInfo[];
  vms(): readonly ProcessInfo[];
}

/** What is to be seen of a world without changing it: logs, processes, and each VM's console and processors. */
export async function worldReport(world: ReportedWorld, ps: () => Promise<string>): Promise<string> {
  const { folder } = world;
  const parts = [`load ${readFileSync("/proc/loadavg", "utf8").trim()}`];
  for (const name of ["run/node.log", "adaptor.log", ...containerdLogs(folder)])
    parts.push(tailOf(join(folder, name), LOG_BYTES));
  parts.push(...world.processes().map((p) => `process ${p.pid} ${p.state} ${p.command.slice(0, 160)}`));
  for (const vm of world.vms()) parts.push(await vmReport(vm));
  parts.push(`kata-remote ps: ${await ps().catch((e: unknown) => String(e))}`);
  return parts.filter((part) => part !== "").join("\n");
}

function containerdLogs(folder: string): string[] {
  return readdirSync(folder)
    .map((name) => join(name, "containerd.log"))
    .filter((path) => existsSync(join(folder, path)));
}

async function vmReport({ pid, command }: ProcessInfo): Promise<string> {
  const socket = /(?:^| )unix:(\S+?),server/.exec(command)?.[1];
  if (socket === undefined) return "";
  const dir = dirname(socket);
  const said = [
    `VM ${pid}`,
    tailOf(join(dir, "console.log"), CONSOLE_BYTES),
    tailOf(join(dir, "qemu.log"), CONSOLE_BYTES),
  ];
  try {
    const call = withDeadline(QMP_MS);
    await using qmp = await Qmp.open(socket, call);
    said.push(JSON.stringify(await qmp.execute("query-status", {}, call)));
    const registers = await qmp.execute("human-monitor-command", { "command-line": "info registers -a" }, call);
    said.push([...String(registers).matchAll(/RIP=\S+|HLT=\d/g)].join(" "));
  } catch (e) {
    said.push(`QEMU does not answer: ${String(e)}`);
  }
  return said.filter((line) => line !== "").join("\n  ");
}

/** "" when there is no such file. */
function tailOf(path: string, bytes: number): string {
  if (!existsSync(path)) return "";
  const text = readFileSync(path, "utf8");
  return `${path} (${text.length} bytes): ${text.slice(-bytes).trim()}`;
}

import { createReadStream } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import type { SandboxStatus, StatusResponse } from "../gen/kataremote/node/v1/control.ts";
import { adaptorText } from "./adaptor-client.ts";
import { adaptorProblems, problemLines } from "./adaptor-problems.ts";
import { askNode, runDir } from "./control-client.ts";
import { printTable } from "./print-table.ts";

/** `kata-remote ps` */
export async function ps(options: { readonly json?: boolean }, call: Call): Promise<void> {
  const status = await askNode((control, o) => control.status({}, o), call);
  const problems = await adaptorProblems(call);
  if (options.json === true) {
    process.stdout.write(`${JSON.stringify({ ...forScripts(status), problems }, undefined, 2)}\n`);
    return;
  }
  printTable(
    ["SANDBOX", "NAMESPACE", "ID", "BACKEND", "STATE", "INSTANCE", "CONTAINERS", "ROOTFS", "AGE", "START"],
    status.sandboxes.map((s) => [
      s.sandboxId.slice(0, 8),
      s.namespace,
      s.id,
      s.hypervisor,
      s.state,
      s.instanceId,
      s.containers.map((c) => `${c.id.slice(0, 12)}:${c.state}`).join(","),
      [...new Set(s.containers.map((c) => c.rootfs))].sort().join("+"),
      seconds(Date.now() - milliseconds(s.createdAtUnixNano)),
      s.timings.map((t) => `${t.stage} ${seconds(Number(t.ms))}`).join(", "),
    ]),
  );
  for (const s of status.sandboxes)
    for (const pull of s.pulls) process.stdout.write(`${s.sandboxId.slice(0, 8)} pulls ${pull}\n`);
  for (const line of problemLines(problems)) process.stdout.write(`${line}\n`);
}

/** `kata-remote open-door` */
export async function openDoor(containerdAddress: string, call: Call): Promise<void> {
  const { address } = await askNode((control, o) => control.openDoor({ containerdAddress }, o), call);
  process.stdout.write(`${address}\n`);
}

/**
 * `kata-remote console`
 * @throws Fault not_found when no sandbox goes by that name
 */
export async function showConsole(name: string, maxBytes: number, call: Call): Promise<void> {
  const sandbox = await findSandbox(name, call);
  if (sandbox.hypervisor !== "remote") {
    throw new Fault(
      "unimplemented",
      `sandbox ${sandbox.id} runs on backend ${sandbox.hypervisor}: its console is the file console.log in the VM's directory`,
    );
  }
  const path = `/v1/instances/${encodeURIComponent(sandbox.instanceId)}/console?maxBytes=${maxBytes}`;
  process.stdout.write(await adaptorText(path, call));
}

/** `kata-remote logs`: the node daemon's lines about one sandbox, whether it still lives or not. */
export async function logs(name: string, call: Call): Promise<void> {
  const names = new Set([name]);
  try {
    const sandbox = await findSandbox(name, call);
    names.add(sandbox.sandboxId).add(sandbox.id);
  } catch {
    // Ended sandboxes and a daemon that is down have logs too: search for the name as it was given.
  }
  const path = join(runDir(), "node.log");
  const lines = createInterface({ input: createReadStream(path, { signal: call.signal }) });
  try {
    for await (const line of lines) {
      if ([...names].some((n) => line.includes(n))) process.stdout.write(`${line}\n`);
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw cause;
    throw new Fault(
      "not_found",
      `${path} does not exist: under systemd, ask journalctl -u kata-remote-node`,
      { path },
      { cause },
    );
  }
}

async function findSandbox(name: string, call: Call): Promise<SandboxStatus> {
  const { sandboxes } = await askNode((control, o) => control.status({}, o), call);
  const found = sandboxes.filter(
    (s) => s.sandboxId.startsWith(name) || s.id.startsWith(name) || s.containers.some((c) => c.id.startsWith(name)),
  );
  const [first, second] = found;
  if (first === undefined)
    throw new Fault("not_found", `no sandbox of this node is called ${name}; kata-remote ps lists them`);
  if (second !== undefined) {
    throw new Fault(
      "invalid_argument",
      `${name} is not enough: ${found.map((s) => s.id).join(", ")} all begin with it`,
    );
  }
  return first;
}

function forScripts(status: StatusResponse): object {
  return {
    version: status.version,
    nodeId: status.nodeId,
    pid: status.pid,
    sandboxes: status.sandboxes.map(({ createdAtUnixNano, timings, containers, _unknownFields, ...rest }) => ({
      ...rest,
      createdAt: new Date(milliseconds(createdAtUnixNano)).toISOString(),
      containers: containers.map(({ id, state, exitCode, rootfs }) => ({ id, state, exitCode, rootfs })),
      timingsMs: perStage(timings),
    })),
  };
}

/** A stage that was entered more than once counts with all its time. */
function perStage(timings: SandboxStatus["timings"]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const { stage, ms } of timings) total[stage] = (total[stage] ?? 0) + Number(ms);
  return total;
}

function milliseconds(unixNano: bigint): number {
  return Number(unixNano / 1_000_000n);
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)}s`;
}

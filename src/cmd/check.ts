import { access, constants, readFile, statfs } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { checkStorage } from "../adaptor/index.ts";
import type { Call } from "../base/call.ts";
import { exec } from "../base/exec.ts";
import { Fault } from "../base/fault.ts";
import { createLogger } from "../base/log.ts";
import { verifyPodNetwork } from "../node/index.ts";
import type { Finding } from "../provider/index.ts";
import { loadAdaptorConfig, openProvider } from "./adaptor.ts";
import { askNode } from "./control-client.ts";
import { readNodeConfig } from "./node.ts";
import { printTable } from "./print-table.ts";

export interface CheckOptions {
  /** Only this provider's account is looked at, whatever the adaptor's configuration chooses. */
  readonly provider?: string | undefined;
  readonly json?: boolean;
  readonly nodeConfig?: string;
  readonly adaptorConfig?: string;
}

/** Programs that the node daemon starts, with the Debian package that has them. */
const TOOLS = [
  ["flock", "util-linux"],
  ["unshare", "util-linux"],
  ["nsenter", "util-linux"],
  ["ip", "iproute2"],
  ["tc", "iproute2"],
  ["mount", "mount"],
  ["tar", "tar"],
] as const;

/**
 * `kata-remote check`: what works here and what does not. Changes nothing.
 * @returns the exit code: 1 when something that pods need is missing
 */
export async function check(options: CheckOptions, call: Call): Promise<number> {
  const subjects =
    options.provider === undefined
      ? [host(call), containerd(call), node(options, call), adaptor(options, call)]
      : [adaptor(options, call)];
  const findings = (await Promise.all(subjects)).flat();
  if (options.json === true) process.stdout.write(`${JSON.stringify(findings, undefined, 2)}\n`);
  else {
    printTable(
      ["STATE", "SUBJECT", "DETAIL", "REMEDY"],
      findings.map((f) => [f.state, f.subject, f.detail, f.remedy ?? ""]),
    );
  }
  return findings.some((f) => f.state === "error") ? 1 : 0;
}

async function host(call: Call): Promise<Finding[]> {
  const found: Finding[] = [];
  for (const [tool, debian] of TOOLS) {
    const path = await onPath(tool);
    found.push(
      path === undefined
        ? { subject: tool, state: "error", detail: "not on PATH", remedy: `apt-get install ${debian}` }
        : { subject: tool, state: "ok", detail: path },
    );
  }
  const root = process.getuid?.() === 0;
  found.push(
    root
      ? { subject: "user", state: "ok", detail: "root" }
      : {
          subject: "user",
          state: "error",
          detail: "not root: mounts and containerd's sockets need it",
          remedy: "sudo kata-remote check",
        },
  );
  const v2 = await access("/sys/fs/cgroup/cgroup.controllers").then(
    () => true,
    () => false,
  );
  found.push({
    subject: "cgroups",
    state: "ok",
    detail: `version ${v2 ? 2 : 1} on the host; metrics are given in that form`,
  });
  const kernel = await exec("uname", ["-r"], call);
  found.push({ subject: "host kernel", state: "ok", detail: kernel.stdout.trim() });
  const { bavail, bsize } = await statfs("/var/lib");
  const freeGiB = (bavail * bsize) / 2 ** 30;
  found.push({
    subject: "disk",
    state: freeGiB < 2 ? "warning" : "ok",
    detail: `${freeGiB.toFixed(1)} GiB free in /var/lib`,
    ...(freeGiB < 2 ? { remedy: "each pod VM writes there: free some space" } : {}),
  });
  return found;
}

async function containerd(call: Call): Promise<Finding[]> {
  const subject = "containerd";
  const path = await onPath("containerd");
  if (path === undefined)
    return [{ subject, state: "error", detail: "not on PATH", remedy: "apt-get install containerd" }];
  const { stdout } = await exec(path, ["--version"], call);
  const version = / v?(\d+)\.(\d+)/.exec(stdout);
  const [, major = "0", minor = "0"] = version ?? [];
  const old = Number(major) < 1 || (Number(major) === 1 && Number(minor) < 6);
  const found: Finding[] = [
    old
      ? { subject, state: "error", detail: stdout.trim(), remedy: "1.6 or newer is needed" }
      : { subject, state: "ok", detail: stdout.trim() },
  ];
  const config = await readFile("/etc/containerd/config.toml", "utf8").catch(() => "");
  found.push(
    config.includes("kata-remote")
      ? { subject: "runtime handler", state: "ok", detail: "/etc/containerd/config.toml names kata-remote" }
      : {
          subject: "runtime handler",
          state: "warning",
          detail: "/etc/containerd/config.toml does not name kata-remote: ctr works, RuntimeClass does not",
          remedy: "add deploy/containerd's fragment",
        },
  );
  return found;
}

async function node(options: CheckOptions, call: Call): Promise<Finding[]> {
  try {
    const config = await readNodeConfig(options.nodeConfig);
    const found: Finding[] = [
      { subject: "node config", state: "ok", detail: `default backend ${config.shim.hypervisor}` },
    ];
    const status = await askNode((control, o) => control.status({}, o), call).catch((e: unknown) => Fault.from(e));
    found.push(
      status instanceof Fault
        ? { subject: "node daemon", state: "ok", detail: "not running: it starts with the first pod" }
        : { subject: "node daemon", state: "ok", detail: `pid ${status.pid}, ${status.sandboxes.length} sandboxes` },
      ...(await verifyPodNetwork(config.podNetwork, call)),
    );
    return found;
  } catch (e) {
    return [{ subject: "node config", state: "error", detail: Fault.from(e).fullMessage, remedy: "correct the file" }];
  }
}

async function adaptor(options: CheckOptions, call: Call): Promise<Finding[]> {
  try {
    const loaded = await loadAdaptorConfig(options.adaptorConfig);
    const config = { ...loaded, provider: options.provider ?? loaded.provider };
    const stored = options.provider === undefined ? await checkStorage(config, call) : [];
    const log = createLogger("check", { level: "error" });
    const provider = await openProvider(config, log);
    try {
      const found = await provider.verify(call);
      const { guestOverheadMiB, memoryMiB } = config.vm;
      const memory = `${memoryMiB} MiB of a pod without a limit + ${guestOverheadMiB} MiB for the guest itself`;
      return [
        ...stored,
        ...found.map((f) => ({ ...f, subject: `${config.provider}: ${f.subject}` })),
        { subject: "VM memory", state: "ok", detail: memory },
      ];
    } finally {
      await provider.close();
    }
  } catch (e) {
    return [
      { subject: "adaptor config", state: "error", detail: Fault.from(e).fullMessage, remedy: "correct the file" },
    ];
  }
}

async function onPath(program: string): Promise<string | undefined> {
  for (const dir of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(dir, program);
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

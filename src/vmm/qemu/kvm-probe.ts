import { spawn } from "node:child_process";
import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../../base/call.ts";
import { mkdirPrivate, readIfThere, writeFileAtomic } from "../../base/files.ts";
import { hostBootId } from "./process.ts";

/** Whether VMs really boot with KVM here, and what was seen. */
export interface KvmVerdict {
  readonly works: boolean;
  readonly detail: string;
}

interface ProbeOptions {
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly qemuPath: string;
  /** The verdict is kept here until the host's next boot. */
  readonly cacheDir: string;
  /** A kernel's first line comes within half a second where KVM works. */
  readonly timeoutMs?: number;
}

/**
 * Boots a kernel with KVM and waits for its first line. /dev/kvm being there, and even opening it, proves nothing: on
 * some nested hosts the first ioctl hangs for ever. So the probe is a process of its own that is killed after
 * `timeoutMs`, and nobody waits for it to be gone.
 */
export async function probeKvm(options: ProbeOptions, call: Call): Promise<KvmVerdict> {
  const cache = join(options.cacheDir, "kvm-probe.json");
  const bootId = await hostBootId();
  const known = parseCache(await readIfThere(cache));
  if (known?.bootId === bootId && known.qemuPath === options.qemuPath)
    return { works: known.works, detail: known.detail };
  const verdict = await probe(options, call);
  if (!call.signal.aborted) {
    await mkdirPrivate(options.cacheDir);
    await writeFileAtomic(cache, JSON.stringify({ bootId, qemuPath: options.qemuPath, ...verdict }));
  }
  return verdict;
}

async function probe(options: ProbeOptions, call: Call): Promise<KvmVerdict> {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return { works: false, detail: "/dev/kvm is not there or not accessible" };
  }
  const timeoutMs = options.timeoutMs ?? 5000;
  const startedAt = Date.now();
  const child = spawn(options.qemuPath, probeArguments(options), { detached: true, stdio: ["ignore", "pipe", "pipe"] });
  const { promise, resolve } = Promise.withResolvers<KvmVerdict>();
  let output = "";
  const onData = (data: Buffer): void => {
    output = (output + data.toString("latin1")).slice(-4000);
    if (output.includes("Linux version"))
      resolve({ works: true, detail: `a kernel booted with KVM in ${Date.now() - startedAt} ms` });
  };
  child.stdout.on("data", onData);
  child.stderr.on("data", onData);
  child.on("error", (e) => resolve({ works: false, detail: `the probe did not start: ${e.message}` }));
  child.on("exit", (code) =>
    resolve({ works: false, detail: `QEMU with KVM ended with ${code ?? "a signal"}: ${output.trim().slice(-300)}` }),
  );
  const timer = setTimeout(
    () => resolve({ works: false, detail: `/dev/kvm is there but a VM does not boot with it within ${timeoutMs} ms` }),
    timeoutMs,
  );
  const onAbort = (): void => resolve({ works: false, detail: "the probe was cut short" });
  call.signal.addEventListener("abort", onAbort, { once: true });
  const verdict = await promise;
  clearTimeout(timer);
  call.signal.removeEventListener("abort", onAbort);
  child.kill("SIGKILL");
  // It may be stuck in the kernel where no signal reaches it: leave it behind rather than hang with it.
  child.stdout.destroy();
  child.stderr.destroy();
  child.unref();
  return verdict;
}

function probeArguments(options: ProbeOptions): string[] {
  return [
    ...["-name", "kata-remote-kvm-probe", "-machine", "q35", "-accel", "kvm", "-cpu", "max", "-m", "256M"],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
    ...["-kernel", options.kernelPath, "-initrd", options.initrdPath, "-append", "console=ttyS0 panic=-1"],
  ];
}

function parseCache(text: string | undefined): ({ bootId: string; qemuPath: string } & KvmVerdict) | undefined {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as { bootId: string; qemuPath: string } & KvmVerdict;
  } catch {
    return undefined; // a broken cache only costs another probe
  }
}

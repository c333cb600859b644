import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { type Call, withDeadline } from "../../base/call.ts";
import { exec } from "../../base/exec.ts";
import { Fault } from "../../base/fault.ts";
import { mkdirPrivate } from "../../base/files.ts";
import { parseInstanceId, parseSandboxId, type SandboxId } from "../../base/ids.ts";
import type { Logger } from "../../base/log.ts";
import { sleep } from "../../base/retry.ts";
import { CONSOLE_KEY_PREFIX, GUEST_PORT } from "../../guestwire/index.ts";
import { type CertificateAuthority, spkiFingerprint } from "../../identity/index.ts";
import { renderUserData } from "../../userdata/index.ts";
import type { BootImage, TapNetwork, Vmm, VmmHandle, VmmSpec, VmNetwork } from "../../vmm/index.ts";
import type {
  GuestIdentity,
  Hypervisor,
  HypervisorCapabilities,
  StockIdentity,
  VmAddress,
  VmLoss,
  VmRequest,
} from "./hypervisor.ts";
import { type Identity, NodeIdentity } from "./node-identity.ts";

export interface QemuHypervisorDeps {
  /** Closed with the hypervisor. */
  readonly vmm: Vmm & AsyncDisposable;
  readonly network: Pick<VmNetwork, "assign" | "release">;
  readonly ca: CertificateAuthority;
  /** Asked for every VM. @throws Fault failed_precondition with the remedy when there is no image */
  readonly bootImage: () => Promise<BootImage>;
  /** Newest part of a VM's serial console; undefined while there is none. */
  readonly readConsole: (dir: string, maxBytes: number) => Promise<string | undefined>;
  readonly nodeId: string;
  /** Node key in it; VMs below it, in `vms/`. */
  readonly stateDir: string;
  readonly qemuPath: string;
  readonly defaultVcpus: number;
  readonly defaultMemoryMiB: number;
  readonly guestOverheadMiB: number;
  readonly acceleration: VmmSpec["acceleration"];
  /** Lets guests open connections through this host. */
  readonly outbound: boolean;
  readonly log: Logger;
}

/** The guest prints its key before it listens; a slow console may show it a little later, ms. */
const CONSOLE_MS = 10_000;
const CONSOLE_POLL_MS = 100;
const CONSOLE_BYTES = 256 * 1024;

interface Machine {
  readonly request: VmRequest;
  pinned: string | undefined;
  watched: boolean;
  tap: TapNetwork | undefined;
}

/** VMs that are children of this process: no adaptor, no cloud. They die with the daemon. */
export class QemuHypervisor implements Hypervisor {
  readonly name = "qemu" as const;
  readonly capabilities: HypervisorCapabilities = { blockDevices: false, hotplug: false, sharedFs: false };
  readonly #deps: QemuHypervisorDeps;
  readonly #identity: NodeIdentity;
  readonly #machines = new Map<SandboxId, Machine>();
  readonly #watchers = new Set<(loss: VmLoss) => void>();
  readonly #over = new AbortController();

  constructor(deps: QemuHypervisorDeps) {
    this.#deps = deps;
    this.#identity = new NodeIdentity({
      dir: deps.stateDir,
      nodeId: deps.nodeId,
      sign: async (csrPem) => ({ caPem: deps.ca.caPem, certificatePem: await deps.ca.signNode(csrPem, deps.nodeId) }),
    });
  }

  clientIdentity(call: Call): Promise<Identity> {
    return this.#identity.get(call);
  }

  async createVm(request: VmRequest): Promise<void> {
    const { sandboxId, instanceType, image, gpus, volumes = [] } = request;
    if (this.#machines.has(sandboxId)) return;
    if (instanceType !== undefined) throw unsupported(sandboxId, `instance type "${instanceType}"`);
    if (image !== undefined) throw unsupported(sandboxId, `image "${image}"`);
    if (gpus > 0) throw unsupported(sandboxId, `${gpus} GPUs`);
    if (volumes.length > 0) throw unsupported(sandboxId, `volume ${volumes.join(", ")}`);
    await this.#deps.bootImage(); // a missing image is said here, before anything exists
    this.#machines.set(sandboxId, { request, pinned: undefined, watched: false, tap: undefined });
  }

  async startVm(id: SandboxId, call: Call): Promise<VmAddress> {
    const machine = this.#machine(id);
    const { request } = machine;
    const { vmm, network, ca, defaultVcpus, defaultMemoryMiB, guestOverheadMiB, acceleration, outbound } = this.#deps;
    const dir = this.#dir(id);
    await mkdirPrivate(this.#root);
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const taken = (): string[] => [...this.#machines.values()].flatMap((m) => m.tap?.address ?? []);
    const keep = (given: TapNetwork | undefined): void => {
      machine.tap = given;
    };
    const tap = await network.assign({ mine: machine.tap, taken, keep }, call);
    const handle = await vmm.start(
      {
        ...(await this.#deps.bootImage()),
        name: `kata-remote-${id.slice(0, 8)}`,
        dir,
        vcpus: Math.max(1, Math.ceil(request.vcpus || defaultVcpus)),
        memoryMiB: (request.memoryMiB || defaultMemoryMiB) + guestOverheadMiB,
        userData: renderUserData({ caPem: ca.caPem }),
        metaData: `instance-id: ${id}\nlocal-hostname: ${id}\n`,
        guestPort: GUEST_PORT,
        tap,
        lifetime: "child",
        ...{ acceleration, outbound },
      },
      call,
    );
    if (this.#machines.get(id) !== machine) {
      // Stopped while it started: the stop found nothing to end.
      await vmm.destroy(dir, withDeadline(30_000));
      throw new Fault("cancelled", "the VM was stopped while it started", { sandboxId: id });
    }
    if (!machine.watched) {
      machine.watched = true;
      void this.#watchOver(id, machine, handle);
    }
    const { address = "127.0.0.1", hostPort, pid } = handle;
    this.#deps.log.info({ sandbox: id, pid, address, port: hostPort }, "VM started");
    return { instanceId: parseInstanceId(`qemu-${id.slice(0, 13)}`), addresses: [address], port: hostPort };
  }

  async signGuest(id: SandboxId, csrPem: string, call: Call): Promise<GuestIdentity> {
    const machine = this.#machine(id);
    const key = spkiFingerprint(csrPem);
    const shown = await this.#keyOnConsole(id, call);
    if (shown !== key) {
      const message = `the guest that answers has another key than the one on the VM's console (${shown.slice(0, 16)}…): it is refused`;
      throw new Fault("permission_denied", message, { sandboxId: id });
    }
    if (machine.pinned !== undefined && machine.pinned !== key) {
      throw new Fault("already_exists", "another key claimed this sandbox before: this guest is refused", {
        sandboxId: id,
      });
    }
    machine.pinned = key;
    return { certificatePem: await this.#deps.ca.signGuest(csrPem, id), verifiedBy: "console" };
  }

  async stockIdentity(id: SandboxId): Promise<StockIdentity> {
    const message = 'the stock image is made by hypervisor "remote" only';
    throw new Fault("unimplemented", message, { sandboxId: id });
  }

  async reportReady(id: SandboxId): Promise<void> {
    this.#deps.log.debug({ sandbox: id }, "guest is ready");
  }

  async stopVm(id: SandboxId, reason: string, call: Call): Promise<void> {
    const known = this.#machines.delete(id);
    await this.#deps.vmm.destroy(this.#dir(id), call);
    await this.#deps.network.release(() => this.#machines.size > 0);
    if (known) this.#deps.log.info({ sandbox: id, reason }, "VM destroyed");
  }

  async watch(onLoss: (loss: VmLoss) => void, call: Call): Promise<void> {
    this.#watchers.add(onLoss);
    try {
      await new Promise<void>((resolve) => {
        if (call.signal.aborted) resolve();
        else call.signal.addEventListener("abort", () => resolve(), { once: true });
      });
    } finally {
      this.#watchers.delete(onLoss);
    }
  }

  async sync(live: readonly SandboxId[], call: Call): Promise<void> {
    const named = new Set<string>(live);
    await mkdirPrivate(this.#root);
    for (const name of await readdir(this.#root)) {
      if (named.has(name) || this.#machines.has(name as SandboxId)) continue;
      await this.#deps.vmm.destroy(join(this.#root, name), call);
      this.#deps.log.info({ sandbox: name }, "destroyed a VM that no pod owns");
    }
    await this.#deps.network.release(() => this.#machines.size > 0);
  }

  async check(call: Call): Promise<{ readonly version: string }> {
    const { stdout } = await exec(this.#deps.qemuPath, ["--version"], call);
    return { version: stdout.split("\n", 1)[0] ?? "" };
  }

  async close(): Promise<void> {
    this.#over.abort(new Fault("cancelled", "the node daemon ends"));
    const ids = [...this.#machines.keys()];
    await Promise.all(ids.map((id) => this.stopVm(id, "the node daemon ends", withDeadline(30_000))));
    await this.#deps.vmm[Symbol.asyncDispose]();
  }

  async #watchOver(id: SandboxId, machine: Machine, handle: VmmHandle): Promise<void> {
    try {
      const { reason } = await this.#deps.vmm.wait(handle, { signal: this.#over.signal });
      if (this.#machines.get(id) !== machine) return; // we ended it
      for (const onLoss of this.#watchers) onLoss({ sandboxId: id, reason });
    } catch (err) {
      if (!this.#over.signal.aborted) this.#deps.log.error({ sandbox: id, err }, "cannot watch a VM");
    }
  }

  /** @throws Fault failed_precondition when the console shows no key in time */
  async #keyOnConsole(id: SandboxId, call: Call): Promise<string> {
    const bounded = withDeadline(CONSOLE_MS, call);
    for (;;) {
      const text = (await this.#deps.readConsole(this.#dir(id), CONSOLE_BYTES)) ?? "";
      const at = text.indexOf(CONSOLE_KEY_PREFIX);
      const key = at < 0 ? undefined : /^[0-9a-f]{64}/.exec(text.slice(at + CONSOLE_KEY_PREFIX.length))?.[0];
      if (key !== undefined) return key;
      await sleep(CONSOLE_POLL_MS, bounded).catch((cause: unknown) => {
        if (call.signal.aborted) throw cause;
        const message =
          "the VM's console shows no guest key: the image is not of this version (see: kata-remote console)";
        throw new Fault("failed_precondition", message, { sandboxId: id }, { cause });
      });
    }
  }

  #machine(id: SandboxId): Machine {
    const machine = this.#machines.get(id);
    if (machine === undefined) throw new Fault("not_found", `no VM was created for sandbox ${id}`, { sandboxId: id });
    return machine;
  }

  get #root(): string {
    return join(this.#deps.stateDir, "vms");
  }

  #dir(id: SandboxId): string {
    return join(this.#root, parseSandboxId(id));
  }
}

function unsupported(sandboxId: SandboxId, what: string): Fault {
  return new Fault(
    "invalid_argument",
    `hypervisor "qemu" cannot give ${what}: leave it out, or use hypervisor "remote"`,
    { sandboxId },
  );
}

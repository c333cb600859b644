import { mkdirSync, writeFileSync } from "node:fs";
import { Fault } from "../../base/fault.ts";
import type { CreateSandboxRequest } from "../../gen/agent/agent.ts";
import { createNamespace, setHostname } from "../system/namespaces.ts";
import type { GuestPlacement } from "./oci-json.ts";
import { type AgentPaths, POD_NETWORK_NAMESPACE } from "./paths.ts";
import type { Storages } from "./storages.ts";

const IPC = "/run/sandbox-ns/ipc";
const UTS = "/run/sandbox-ns/uts";

/** What the containers of the pod share: namespaces, host name, resolv.conf, volumes. */
export class Sandbox {
  readonly #paths: AgentPaths;
  readonly #storages: Storages;
  #id: string | undefined;
  #hostname = "";
  #sharedPid = false;
  #pidNamespace: string | undefined;
  #ready = false;

  constructor(deps: { readonly paths: AgentPaths; readonly storages: Storages }) {
    this.#paths = deps.paths;
    this.#storages = deps.storages;
    mkdirSync(`${deps.paths.run}/shared/containers`, { recursive: true });
  }

  /** @throws Fault failed_precondition for a second one, leaving the first as it is */
  create(request: CreateSandboxRequest): void {
    if (this.#id !== undefined) {
      throw new Fault("failed_precondition", `this pod VM has sandbox "${this.#id}" already`);
    }
    if (request.guestHookPath !== "") {
      throw new Fault("invalid_argument", `guest_hook_path "${request.guestHookPath}": guest hooks are not supported`);
    }
    this.#id = request.sandboxId;
    this.#hostname = request.hostname;
    this.#sharedPid = request.sandboxPidns;
    this.#makeNamespaces();
    for (const storage of request.storages) this.#storages.add(storage, request.sandboxId);
    if (request.dns.length > 0) this.#writeResolvConf(request.dns);
  }

  /**
   * Where a container goes. CreateSandbox may be left out by a client: the namespaces are made then.
   * @param sharedPid the container asks for the pod's PID namespace
   */
  placementOf(containerId: string, rootPath: string, sharedPid: boolean): GuestPlacement {
    this.#makeNamespaces();
    const pid = (sharedPid || this.#sharedPid) && this.#pidNamespace;
    return {
      rootPath,
      cgroupsPath: `/pod/${containerId}`,
      namespaces: { network: POD_NETWORK_NAMESPACE, ipc: IPC, uts: UTS, ...(pid ? { pid } : {}) },
      keepHostname: this.#hostname !== "",
    };
  }

  /** The first container's PID namespace is the one that the pod shares, as the stock agent has it. */
  containerCreated(pid: number): void {
    this.#pidNamespace ??= `/proc/${pid}/ns/pid`;
  }

  #makeNamespaces(): void {
    if (this.#ready) return;
    createNamespace("ipc", IPC);
    createNamespace("uts", UTS, () => {
      if (this.#hostname !== "") setHostname(this.#hostname);
    });
    this.#ready = true;
  }

  #writeResolvConf(lines: readonly string[]): void {
    const file = `${this.#paths.run}/sandbox/resolv.conf`;
    mkdirSync(`${this.#paths.run}/sandbox`, { recursive: true });
    writeFileSync(file, `${lines.join("\n")}\n`);
  }
}

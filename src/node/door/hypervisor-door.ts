import type { Logger } from "../../base/log.ts";
import { HypervisorDefinition } from "../../gen/hypervisor/hypervisor.ts";
import { PodVMInfoDefinition } from "../../gen/hypervisor/podvminfo.ts";
import { UnixListener } from "../../relay/index.ts";
import { Code, type ServerCall, StatusError, TtrpcServer } from "../../ttrpc/index.ts";
import type { StockPods } from "./stock-pods.ts";
import { readCreateVm } from "./vm-annotations.ts";

/** What the stock adaptor answers; no shim asks. Source: wire contract §3.2. */
const VERSION = "0.0.0";
/** The Rust shim gives StopVM one second: what is not done by then goes on behind the answer, ms. */
const STOP_ANSWER_MS = 400;

/** How often the socket is looked for, ms. */
const LOOK_MS = 2000;

/**
 * hypervisor.sock: what stock shims ask for VMs. Go's shim comes with a connection for each call, the Rust one keeps one;
 * neither going away stops anything.
 * Source: wire contract §3.2, §3.3
 */
export class HypervisorDoor {
  readonly #server: TtrpcServer;
  readonly #path: string;
  readonly #log: Logger;
  /** The newest is the one that is reached; connections of the others live on. */
  readonly #listeners: UnixListener[] = [];
  readonly #ticker: NodeJS.Timeout;
  #looking = false;

  private constructor(path: string, server: TtrpcServer, log: Logger) {
    this.#path = path;
    this.#server = server;
    this.#log = log;
    this.#ticker = setInterval(() => void this.#look(), LOOK_MS);
    this.#ticker.unref();
  }

  /** @throws Fault when the socket cannot be made */
  static async open(path: string, deps: { readonly pods: StockPods; readonly log: Logger }): Promise<HypervisorDoor> {
    const { pods, log } = deps;
    const server = new TtrpcServer({ log });
    server.addService(HypervisorDefinition, {
      createVM: async (request, { signal }) => ({
        agentSocketPath: await pods.create(readCreateVm(request), { signal }),
      }),
      startVM: async ({ id }, { signal }) => {
        await pods.start(id, { signal });
        return {};
      },
      stopVM: async ({ id }) => {
        const stopped = pods.stop(id, "its shim asked for it");
        await Promise.race([stopped, new Promise((resolve) => setTimeout(resolve, STOP_ANSWER_MS))]);
        return {};
      },
      version: async () => ({ version: VERSION }),
    });
    server.addService(PodVMInfoDefinition, {
      getInfo: async ({ PodName: name, PodNamespace: namespace, Wait: wait }, call) => ({
        VMID: await instanceOf(pods, { name, namespace }, wait, call),
      }),
    });
    const door = new HypervisorDoor(path, server, log);
    try {
      await door.#listen();
      return door;
    } catch (e) {
      await door.close();
      throw e;
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#ticker);
    this.#server.close();
    for (const listener of this.#listeners.splice(0)) await listener.close();
  }

  async #listen(): Promise<void> {
    const listener = await UnixListener.open(this.#path, (socket) => {
      this.#server.accept(socket);
    });
    this.#listeners.push(listener);
  }

  /** A stock adaptor that ends unlinks the socket, whosever it is by then. */
  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      if ((await this.#listeners.at(-1)?.isReachable()) !== false) return;
      await this.#listen();
      this.#log.warn({ socket: this.#path }, "the hypervisor socket was taken away or replaced: it is there again");
    } catch (err) {
      this.#log.error({ socket: this.#path, err }, "the hypervisor socket was taken away and cannot be made again");
    } finally {
      this.#looking = false;
    }
  }
}

/** Waits, when asked to, until there is an instance; the stock adaptor gives up as soon as there is a sandbox. */
async function instanceOf(
  pods: StockPods,
  pod: { readonly name: string; readonly namespace: string },
  wait: boolean,
  call: ServerCall,
): Promise<string> {
  for (;;) {
    const found = pods.instanceOf(pod);
    if (found !== undefined) return found;
    if (!wait) throw new StatusError(Code.notFound, `VM ID for ${pod.namespace}:${pod.name} was not found`);
    await pods.changed({ signal: call.signal }); // no pod can have started between the look and this
  }
}

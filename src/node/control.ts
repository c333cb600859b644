import { join } from "node:path";
import type { Logger } from "../base/log.ts";
import { VERSION } from "../base/version.ts";
import { ControlDefinition, type SandboxStatus } from "../gen/kataremote/node/v1/control.ts";
import { UnixListener } from "../relay/index.ts";
import type { ShimSandboxStatus, ShimService } from "../shim/index.ts";
import { TtrpcServer } from "../ttrpc/index.ts";
import type { Doors } from "./doors.ts";

/** Name of the control socket in the run directory. */
export const CONTROL_SOCKET = "control.sock";

export interface ControlDeps {
  readonly runDir: string;
  readonly nodeId: string;
  readonly doors: Doors;
  readonly shim: ShimService;
  readonly log: Logger;
  /** Every pod and the daemon shall end. */
  readonly onDrain: () => void;
}

/** What the launcher and the command line ask of a node daemon: kataremote.node.v1.Control. */
export class Control {
  readonly #listener: UnixListener;
  readonly #server: TtrpcServer;

  private constructor(listener: UnixListener, server: TtrpcServer) {
    this.#listener = listener;
    this.#server = server;
  }

  static async open(deps: ControlDeps): Promise<Control> {
    const server = new TtrpcServer({ log: deps.log });
    server.addService(ControlDefinition, {
      openDoor: async ({ containerdAddress }) => ({ address: await deps.doors.open(containerdAddress) }),
      cleanup: async ({ containerdAddress, namespace, id }, call) => {
        const done = await deps.shim.cleanup(containerdAddress, namespace, id, { signal: call.signal });
        return { pid: done.pid, exitStatus: done.exitStatus, exitedAtUnixNano: unixNano(done.exitedAt) };
      },
      drain: async () => {
        deps.onDrain();
        return {};
      },
      status: async () => ({
        version: VERSION,
        nodeId: deps.nodeId,
        pid: process.pid,
        sandboxes: deps.shim.status().map(onTheWire),
      }),
    });
    const listener = await UnixListener.open(join(deps.runDir, CONTROL_SOCKET), (socket) => {
      server.accept(socket);
    });
    return new Control(listener, server);
  }

  async close(): Promise<void> {
    this.#server.close();
    await this.#listener.close();
  }
}

function onTheWire(s: ShimSandboxStatus): SandboxStatus {
  return {
    sandboxId: s.sandboxId,
    containerdAddress: s.containerdAddress,
    namespace: s.namespace,
    id: s.id,
    hypervisor: s.hypervisor,
    state: s.state,
    instanceId: s.instanceId,
    containers: s.containers.map(({ id, state, exitCode, rootfs }) => ({ id, state, exitCode, rootfs })),
    pulls: [...s.pulls],
    createdAtUnixNano: unixNano(s.createdAt),
    guestBootId: s.guestBootId,
    guestKernel: s.guestKernel,
    timings: s.timings.map(({ stage, ms }) => ({ stage, ms: BigInt(Math.round(ms)) })),
  };
}

function unixNano(date: Date): bigint {
  return BigInt(date.getTime()) * 1_000_000n;
}

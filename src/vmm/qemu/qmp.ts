import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { createInterface, type Interface } from "node:readline";
import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { ended, race } from "../../base/retry.ts";

interface QmpMessage {
  readonly QMP?: unknown;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

/** A QMP connection: one command at a time. QEMU serves one client per socket, so close it soon. Source: QEMU's qmp-spec. */
export class Qmp implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #lines: Interface;
  readonly #messages: AsyncIterator<string>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#lines = createInterface({ input: socket });
    this.#messages = this.#lines[Symbol.asyncIterator]();
    // A broken connection ends the lines, which #read reports.
    socket.on("error", () => undefined);
  }

  /** @throws Fault unavailable when nobody listens there, or the call's own end */
  static async open(path: string, call: Call): Promise<Qmp> {
    const socket = connect(path);
    try {
      await once(socket, "connect", { signal: call.signal });
    } catch (cause) {
      socket.destroy();
      if (call.signal.aborted) throw ended(call, cause);
      throw new Fault("unavailable", `QEMU does not listen on ${path}`, {}, { cause });
    }
    const qmp = new Qmp(socket);
    try {
      while ((await qmp.#read(call)).QMP === undefined);
      await qmp.execute("qmp_capabilities", {}, call);
      return qmp;
    } catch (e) {
      await qmp[Symbol.asyncDispose]();
      throw e;
    }
  }

  /**
   * Runs a command in QEMU's main loop, so an answer also means that its start-up is over.
   * @throws Fault failed_precondition with QEMU's words; unavailable when the connection ends first
   */
  async execute(command: string, args: Readonly<Record<string, unknown>>, call: Call): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    for (;;) {
      const message = await this.#read(call);
      if (message.error !== undefined) {
        throw new Fault("failed_precondition", `QEMU refused ${command}: ${message.error.desc}`, { command });
      }
      if (message.return !== undefined) return message.return; // anything else is an event
    }
  }

  async #read(call: Call): Promise<QmpMessage> {
    const line = await race(this.#messages.next(), call).catch((e: unknown) => {
      if (e instanceof Fault) throw e;
      throw new Fault("unavailable", "the QMP connection broke", {}, { cause: e });
    });
    if (line.done === true) throw new Fault("unavailable", "QEMU closed its QMP connection");
    return JSON.parse(line.value) as QmpMessage;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lines.close();
    this.#socket.destroy();
  }
}

/** The host port that user-mode networking listens on. @throws Fault internal when QEMU lists none */
export async function forwardedPort(qmp: Qmp, guestPort: number, call: Call): Promise<number> {
  const text = String(await qmp.execute("human-monitor-command", { "command-line": "info usernet" }, call));
  for (const line of text.split(/\r?\n/)) {
    // Protocol[State]  FD  Source Address  Port  Dest. Address  Port  RecvQ SendQ
    const [protocol, , , hostPort, , toPort] = line.trim().split(/\s+/);
    if (protocol === "TCP[HOST_FORWARD]" && toPort === String(guestPort)) return Number(hostPort);
  }
  throw new Fault("internal", `QEMU forwards no host port to port ${guestPort} of the guest: ${text.trim()}`);
}

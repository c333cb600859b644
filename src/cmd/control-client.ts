import { connect } from "node:net";
import { join } from "node:path";
import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { race } from "../base/retry.ts";
import { ControlDefinition } from "../gen/kataremote/node/v1/control.ts";
import { CONTROL_SOCKET } from "../node/index.ts";
import { createClient, type ServiceClient, TtrpcClient } from "../ttrpc/index.ts";

/** Budget of one question to the node daemon, ms; it answers from memory. */
const ANSWER_MS = 10_000;

/** Run directory of this node's daemon; KATA_REMOTE_RUN_DIR as for the launcher. */
export function runDir(): string {
  return process.env.KATA_REMOTE_RUN_DIR ?? "/run/kata-remote";
}

/**
 * Asks the living node daemon.
 * @throws Fault unavailable when none runs
 */
export async function askNode<T>(
  ask: (control: ServiceClient<typeof ControlDefinition>, options: { timeoutMs: number }) => Promise<T>,
  call: Call,
): Promise<T> {
  const path = join(runDir(), CONTROL_SOCKET);
  const socket = connect(path);
  try {
    await race(
      new Promise<void>((resolve, reject) => {
        socket.once("connect", resolve);
        socket.once("error", reject);
      }),
      call,
    );
  } catch (cause) {
    throw new Fault(
      "unavailable",
      `no node daemon answers at ${path}: it starts with the first pod, or with kata-remote up`,
      { path },
      { cause },
    );
  }
  const client = new TtrpcClient(socket);
  try {
    return await ask(createClient(ControlDefinition, client), { timeoutMs: ANSWER_MS });
  } finally {
    client.close();
  }
}

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { type Call, withDeadline } from "../../base/call.ts";
import type { Logger } from "../../base/log.ts";
import { Process } from "../../gen/agent/oci.ts";
import { DIAL_PROGRAM } from "../../guestwire/index.ts";
import type { Agent } from "../agent/index.ts";

export interface GuestConnectionDeps {
  readonly agent: Pick<Agent, "execProcess" | "readOutput" | "writeInput" | "closeInput" | "signalProcess">;
  /** A running container of the pod: all share its localhost. */
  readonly containerId: string;
  /** Aborted when the guest is lost or taken down. */
  readonly life: AbortSignal;
  readonly log: Logger;
}

const SIGKILL = 9;

/** Joins a connection of the node with one to a port of the pod's localhost; resolves when both have ended. Never rejects. */
export async function joinToGuest(socket: Socket, port: number, deps: GuestConnectionDeps): Promise<void> {
  const { agent, containerId, life, log } = deps;
  const ref = { containerId, execId: randomUUID() };
  const end = new AbortController();
  const call: Call = { signal: AbortSignal.any([life, end.signal]) };
  socket.on("error", () => undefined); // "close" follows
  socket.once("close", () => end.abort());
  let dialed = false;
  try {
    await agent.execProcess(ref, Process.fromPartial({ Args: [DIAL_PROGRAM, String(port)], Cwd: "/" }), call);
    dialed = true;
    await Promise.all([copyIn(socket, ref, agent, call), copyOut(socket, ref, agent, call)]);
  } catch (err) {
    // A reset, so that the other end does not take it for the end of an answer.
    socket.resetAndDestroy();
    if (!call.signal.aborted) log.info({ err, port }, "connection to a port of the pod ended early");
  }
  if (!dialed || life.aborted) return;
  // Success when it has ended by itself.
  await agent
    .signalProcess(ref, SIGKILL, withDeadline(10_000, { signal: life }))
    .catch((err: unknown) => log.debug({ err, port }, "connection in the guest not closed"));
}

type Ref = Parameters<GuestConnectionDeps["agent"]["readOutput"]>[0];

async function copyIn(socket: Socket, ref: Ref, agent: GuestConnectionDeps["agent"], call: Call): Promise<void> {
  let offset = 0;
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    await agent.writeInput(ref, chunk, offset, call);
    offset += chunk.length;
  }
  await agent.closeInput(ref, call);
}

async function copyOut(socket: Socket, ref: Ref, agent: GuestConnectionDeps["agent"], call: Call): Promise<void> {
  for (let offset = 0; ; ) {
    const data = await agent.readOutput(ref, offset, call);
    if (data.length === 0) break;
    offset += data.length;
    if (!socket.write(data)) await once(socket, "drain", { signal: call.signal });
  }
  socket.end();
}

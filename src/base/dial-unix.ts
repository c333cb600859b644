import { connect, type Socket } from "node:net";
import type { Call } from "./call.ts";
import { Fault } from "./fault.ts";
import { ended } from "./retry.ts";

/**
 * Connects to a unix socket. The call bounds the connecting only: a signal given to net.connect would end the
 * connection itself later on.
 * @throws Fault unavailable naming the path | deadline_exceeded | cancelled
 */
export async function dialUnix(path: string, call: Call): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = connect({ path });
  const onAbort = (): void => {
    socket.destroy();
    reject(ended(call));
  };
  const onError = (cause: Error): void => reject(new Fault("unavailable", `nobody listens at ${path}`, {}, { cause }));
  socket.once("connect", () => resolve(socket)).once("error", onError);
  call.signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await promise;
  } finally {
    call.signal.removeEventListener("abort", onAbort);
    socket.off("error", onError);
  }
}

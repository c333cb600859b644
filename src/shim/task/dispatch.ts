import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { TaskDefinition } from "../../gen/containerd/task/v2/shim.ts";
import type { TaskReply } from "../../relay/index.ts";
import { Code, type Codec, faultToStatus, StatusError } from "../../ttrpc/index.ts";

/** Who calls: one containerd (by its -address) in one of its namespaces. */
export interface TaskCaller {
  readonly address: string;
  readonly namespace: string;
  readonly call: Call;
}

type Methods = typeof TaskDefinition.methods;
type MessageOf<C> = C extends { decode(input: Uint8Array, length?: number): infer T } ? T : never;

/** One function per method of the Task API; all are there. */
export type TaskHandlers = {
  readonly [M in keyof Methods]: (
    request: MessageOf<Methods[M]["requestType"]>,
    caller: TaskCaller,
  ) => Promise<MessageOf<Methods[M]["responseType"]>>;
};

/** v3 has the messages and methods of v2 under another package name. Source: containerd 2.x api/runtime/task/v3. */
const SERVICES = new Set([TaskDefinition.fullName, "containerd.task.v3.Task"]);
const METHODS = new Map(
  Object.entries(TaskDefinition.methods).map(([key, method]) => [
    method.name as string,
    { key: key as keyof Methods, method },
  ]),
);

/**
 * Decodes one call, runs its handler, encodes the answer.
 * @throws Fault unimplemented for another service or method, invalid_argument for a payload that is no such message
 */
export async function dispatch(
  handlers: TaskHandlers,
  request: { readonly service: string; readonly method: string; readonly payload: Uint8Array },
  caller: TaskCaller,
): Promise<Uint8Array> {
  const { service, method } = request;
  const found = SERVICES.has(service) ? METHODS.get(method) : undefined;
  // The code tells containerd 2.x to try an older service.
  if (found === undefined) throw new Fault("unimplemented", `${service}/${method} is not served here`);
  let message: unknown;
  try {
    message = (found.method.requestType as Codec<unknown>).decode(request.payload);
  } catch (cause) {
    throw new Fault("invalid_argument", `the payload of ${service}/${method} is not a valid message`, {}, { cause });
  }
  const handler = handlers[found.key] as (request: unknown, caller: TaskCaller) => Promise<unknown>;
  const answer = await handler(message, caller);
  return (found.method.responseType as Codec<unknown>).encode(answer).finish();
}

/** What containerd is told of an error. Internal goes out as Unknown, as from every other shim. Source: reference §1.8. */
export function errorReply(thrown: unknown): TaskReply & { readonly ok: false } {
  const { code, message } = faultToStatus(thrown instanceof StatusError ? thrown : Fault.from(thrown));
  return { ok: false, code: code === Code.internal ? Code.unknown : code, message };
}

import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";
import { SandboxDefinition } from "../../gen/containerd/runtime/sandbox/v1/sandbox.ts";
import { TaskDefinition } from "../../gen/containerd/task/v2/shim.ts";
import type { TaskReply } from "../../relay/index.ts";
import { Code, type Codec, faultToStatus, StatusError } from "../../ttrpc/index.ts";

/** Who calls: one containerd (by its -address) in one of its namespaces. */
export interface TaskCaller {
  readonly address: string;
  readonly namespace: string;
  readonly call: Call;
}

type MessageOf<C> = C extends { decode(input: Uint8Array, length?: number): infer T } ? T : never;
type Method = { readonly requestType: unknown; readonly responseType: unknown };

/** One function per method of a service; all are there. */
type Handlers<Methods extends Readonly<Record<string, Method>>> = {
  readonly [M in keyof Methods]: (
    request: MessageOf<Methods[M]["requestType"]>,
    caller: TaskCaller,
  ) => Promise<MessageOf<Methods[M]["responseType"]>>;
};

export type TaskHandlers = Handlers<typeof TaskDefinition.methods>;
export type SandboxHandlers = Handlers<typeof SandboxDefinition.methods>;

export interface ServedApis {
  readonly task: TaskHandlers;
  readonly sandbox: SandboxHandlers;
}

/** v3 has the messages and methods of v2 under another package name. Source: containerd 2.x api/runtime/task/v3. */
const SERVICES: ReadonlyMap<string, { readonly api: keyof ServedApis; readonly methods: object }> = new Map([
  [TaskDefinition.fullName, { api: "task", methods: TaskDefinition.methods }],
  ["containerd.task.v3.Task", { api: "task", methods: TaskDefinition.methods }],
  [SandboxDefinition.fullName, { api: "sandbox", methods: SandboxDefinition.methods }],
]);
const METHODS = new Map(
  [...SERVICES].flatMap(([service, { api, methods }]) =>
    Object.entries(methods as Readonly<Record<string, Method & { readonly name: string }>>).map(
      ([key, method]) => [`${service}/${method.name}`, { api, key, method }] as const,
    ),
  ),
);

/**
 * Decodes one call, runs its handler, encodes the answer.
 * @throws Fault unimplemented for another service or method, invalid_argument for a payload that is no such message
 */
export async function dispatch(
  apis: ServedApis,
  request: { readonly service: string; readonly method: string; readonly payload: Uint8Array },
  caller: TaskCaller,
): Promise<Uint8Array> {
  const { service, method } = request;
  const found = METHODS.get(`${service}/${method}`);
  // The code tells containerd 2.x to try an older service.
  if (found === undefined) throw new Fault("unimplemented", `${service}/${method} is not served here`);
  let message: unknown;
  try {
    message = (found.method.requestType as Codec<unknown>).decode(request.payload);
  } catch (cause) {
    throw new Fault("invalid_argument", `the payload of ${service}/${method} is not a valid message`, {}, { cause });
  }
  const handlers = apis[found.api] as unknown as Readonly<
    Record<string, (request: unknown, caller: TaskCaller) => Promise<unknown>>
  >;
  const answer = await handlers[found.key]?.(message, caller);
  return (found.method.responseType as Codec<unknown>).encode(answer).finish();
}

/** What containerd is told of an error. Internal goes out as Unknown, as from every other shim. Source: reference §1.8. */
export function errorReply(thrown: unknown): TaskReply & { readonly ok: false } {
  const { code, message } = faultToStatus(thrown instanceof StatusError ? thrown : Fault.from(thrown));
  return { ok: false, code: code === Code.internal ? Code.unknown : code, message };
}

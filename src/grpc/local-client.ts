import type { Call } from "../base/call.ts";
import { Fault } from "../base/fault.ts";
import { ended, race } from "../base/retry.ts";
import type { ServiceClient } from "./client.ts";
import type { MethodShape, ServiceShape } from "./definition.ts";
import type { Handlers, Peer } from "./server.ts";

/** Who calls from within. */
const SELF: Peer = { address: "this process" };

type AnyHandler = (request: unknown, call: Call, peer: Peer) => Promise<unknown> | AsyncIterable<unknown>;

/**
 * A client of a service of this very process: the same contract as createClient's, without a socket and its encodings. What
 * a handler throws arrives as the Fault that a wire would make of it.
 * @param onError As implement's
 */
export function createLocalClient<S extends ServiceShape>(
  service: S,
  handlers: Handlers<S>,
  onError: (method: string, error: unknown) => void = () => undefined,
): ServiceClient<S> {
  const closed = new AbortController();
  const methods = Object.entries(service.methods).map(([key, method]) => {
    const handler = handlers[key as keyof S["methods"]] as unknown as AnyHandler;
    const report = (error: unknown, call: Call): Fault => {
      if (call.signal.aborted) return ended(call, error);
      onError(method.name, error);
      const { code, fullMessage, retryable } = Fault.from(error);
      return new Fault(code, fullMessage, {}, { retryable });
    };
    // No more of a call than a wire carries.
    const within = ({ signal, traceparent }: Call): Call => ({
      signal: AbortSignal.any([signal, closed.signal]),
      ...(traceparent === undefined ? {} : { traceparent }),
    });
    return [
      key,
      method.responseStream ? streaming(method, handler, report, within) : unary(method, handler, report, within),
    ];
  });
  const close = (): void => closed.abort(new Fault("unavailable", "the connection was closed"));
  return { ...Object.fromEntries(methods), close } as ServiceClient<S>;
}

type Report = (error: unknown, call: Call) => Fault;

function unary(method: MethodShape, handler: AnyHandler, report: Report, within: (call: Call) => Call) {
  return async (request: never, caller: Call): Promise<unknown> => {
    const call = within(caller);
    if (call.signal.aborted) throw ended(call);
    try {
      return await race(handler(method.requestType.fromPartial(request), call, SELF) as Promise<unknown>, call);
    } catch (error) {
      throw report(error, call);
    }
  };
}

function streaming(method: MethodShape, handler: AnyHandler, report: Report, within: (call: Call) => Call) {
  return async function* (request: never, caller: Call): AsyncGenerator<unknown> {
    const stop = new AbortController();
    const outer = within(caller);
    const call = { ...outer, signal: AbortSignal.any([outer.signal, stop.signal]) };
    if (call.signal.aborted) throw ended(call);
    let parts: AsyncIterator<unknown> | undefined;
    try {
      parts = (handler(method.requestType.fromPartial(request), call, SELF) as AsyncIterable<unknown>)[
        Symbol.asyncIterator
      ]();
      for (let part = await race(parts.next(), call); part.done !== true; part = await race(parts.next(), call))
        yield part.value;
    } catch (error) {
      throw report(error, call);
    } finally {
      stop.abort(); // whoever reads no further cancels
      parts?.return?.().catch(() => undefined); // the handler's own clean-up; nobody is there to be told
    }
  };
}

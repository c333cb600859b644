import { Code, StatusError } from "./status.ts";
import type { CallOptions, ServiceClient, ServiceDefinition, UnaryCaller } from "./types.ts";

/**
 * A typed client of a service. `as` calls it under another name, for services that share their messages. Its functions
 * throw what `caller` throws, and StatusError internal when a reply cannot be decoded.
 */
export function createClient<D extends ServiceDefinition>(
  definition: D,
  caller: UnaryCaller,
  options: { readonly as?: string } = {},
): ServiceClient<D> {
  const service = options.as ?? definition.fullName;
  const functions = Object.entries(definition.methods).map(([key, { name, requestType, responseType }]) => {
    const call = async (message: unknown, callOptions?: CallOptions): Promise<unknown> => {
      const reply = await caller.call(service, name, requestType.encode(message).finish(), callOptions);
      try {
        return responseType.decode(reply);
      } catch (cause) {
        throw new StatusError(Code.internal, `${service}/${name}: the reply is not a valid message`, [], { cause });
      }
    };
    return [key, call] as const;
  });
  return Object.fromEntries(functions) as unknown as ServiceClient<D>;
}

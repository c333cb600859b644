import { Fault } from "../../base/fault.ts";
import { StatusError, statusToFault } from "../../ttrpc/index.ts";

/**
 * The agent's own words, without the Rust backtrace that the stock agent appends (about 500 bytes).
 * Source: seen with kata-agent 4.1; anyhow's Debug format.
 */
export function withoutBacktrace(message: string): string {
  const cut = message.search(/\n\s*(stack backtrace|backtrace):/i);
  return (cut < 0 ? message : message.slice(0, cut)).trim();
}

/**
 * Turns what a call of the agent threw into a Fault that says which call on what failed. People get the agent's words
 * without its backtrace; `detail` has all of them for the log.
 */
export function agentFault(thrown: unknown, action: string, containerId: string): Fault {
  const message = (text: string): string => `the guest could not ${action}: ${text}`;
  if (thrown instanceof StatusError) {
    const context = { container: containerId, detail: thrown.message };
    return new Fault(statusToFault(thrown).code, message(withoutBacktrace(thrown.message)), context, {
      retryable: false,
    });
  }
  const fault = Fault.from(thrown);
  return new Fault(
    fault.code,
    message(fault.message),
    { ...fault.context, container: containerId },
    { cause: fault.cause },
  );
}

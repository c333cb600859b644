import type { Call } from "../../base/call.ts";
import { Fault } from "../../base/fault.ts";

/** A Call with the node that makes it. */
export interface NodeCall extends Call {
  /** Proven by mutual TLS. Absent on the local socket, which only the adaptor's own user can open. */
  readonly nodeId?: string;
}

/**
 * A node acts for itself only.
 * @throws Fault permission_denied
 */
export function checkNode(nodeId: string, call: NodeCall): void {
  if (call.nodeId === undefined || call.nodeId === nodeId) return;
  throw new Fault("permission_denied", `node ${call.nodeId} may not act for node ${nodeId}`, { node: call.nodeId });
}

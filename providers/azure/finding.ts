import { Fault } from "../../src/base/fault.ts";
import type { Finding } from "../../src/provider/index.ts";
import { kindOf } from "./faults.ts";

/** Remedy when nothing came back. */
export const UNREACHABLE =
  "let this host reach Azure Resource Manager: through a NAT gateway, a firewall rule or a proxy";

/** The finding for a question that could not be answered. */
export function failed(subject: string, thrown: unknown, remedy: string): Finding {
  const fault = Fault.from(thrown);
  const detail = fault.fullMessage;
  const kind = kindOf(fault);
  if (kind === "transient") return { subject, state: "error", detail, remedy: UNREACHABLE };
  if (kind === "auth") {
    return { subject, state: "error", detail, remedy: "assign the role in providers/azure/README.md at this scope" };
  }
  return { subject, state: "error", detail, remedy };
}

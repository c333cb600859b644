import { Fault } from "../../src/base/fault.ts";
import type { Finding } from "../../src/provider/index.ts";
import { kindOf } from "./faults.ts";
import { UNREACHABLE } from "./verify-permissions.ts";

/** What an error means in a list of findings. */
export function failed(subject: string, thrown: unknown, remedy: string): Finding {
  const fault = Fault.from(thrown);
  const detail = fault.fullMessage;
  const kind = kindOf(fault);
  if (kind === "transient") return { subject, state: "error", detail, remedy: UNREACHABLE };
  const permission = `allow ec2:${fault.context.action}: see providers/aws/README.md`;
  return { subject, state: "error", detail, remedy: kind === "auth" ? permission : remedy };
}

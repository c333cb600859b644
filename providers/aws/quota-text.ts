import type { Fault } from "../../src/base/fault.ts";
import { type Candidate, describeCandidate, quotaClass } from "./candidates.ts";
import type { TypeSize } from "./instance-types.ts";

/** EC2's refusal of a candidate for a quota. */
export interface QuotaRefusal {
  readonly candidate: Candidate;
  readonly fault: Fault;
}

/** Says which quota it is, with its number where EC2 names it, what was needed, and the remedy. */
export function quotaText({ candidate, fault }: QuotaRefusal, types: readonly TypeSize[], region: string): string {
  const code = String(fault.context.awsCode ?? "");
  const needs = types.find((t) => t.name === candidate.type)?.vcpus;
  const market = candidate.market === "spot" ? "spot" : "on-demand";
  const need = `${candidate.type} needs ${needs ?? "more"} more`;
  const remedy = "raise it in the Service Quotas console or end other VMs";
  if (code === "VcpuLimitExceeded" || code === "MaxSpotInstanceCountExceeded") {
    // The limit is only in the text. It is shown, nothing is decided by it.
    const limit = /limit of (\d+)/.exec(fault.cause instanceof Error ? fault.cause.message : "")?.[1];
    const quota = `${limit === undefined ? "the quota" : `the quota of ${limit} vCPUs`} for ${market} ${quotaClass(candidate.type)} instances`;
    return `${quota} in ${region} is used up, ${need}: ${remedy}`;
  }
  return `the quota behind ${code} in ${region} is used up (${describeCandidate(candidate)}): ${remedy}`;
}

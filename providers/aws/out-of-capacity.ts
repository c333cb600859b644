import { Fault } from "../../src/base/fault.ts";
import { type Candidate, describeCandidate, quotaClass, type Shortage } from "./candidates.ts";
import type { TypeSize } from "./instance-types.ts";

/** EC2's refusal of one candidate. */
export interface Refusal {
  readonly candidate: Candidate;
  readonly kind: Shortage;
  readonly fault: Fault;
}

/**
 * Says with numbers why no candidate could be had. To be tried again when it was for capacity, which comes back by
 * itself; not for a quota, which an operator has to raise or other VMs have to leave.
 */
export function outOfCapacity(refusals: readonly Refusal[], types: readonly TypeSize[], region: string): Fault {
  const quotas = refusals.filter((r) => r.kind === "quota");
  const others = refusals.filter((r) => r.kind !== "quota");
  const parts = [
    ...quotas.map((r) => quotaText(r, types, region)),
    ...(others.length === 0
      ? []
      : [`${others.length} places in ${region} have no room: ${others.map(placeText).join(", ")}`]),
  ];
  const [first] = refusals;
  const capacity = others.length > 0;
  return new Fault(
    "resource_exhausted",
    `no VM can be had: ${[...new Set(parts)].join("; ")}`,
    { provider: "aws", region, kind: capacity ? "capacity" : "quota", tried: refusals.length },
    { retryable: capacity, ...(first?.fault.cause === undefined ? {} : { cause: first.fault.cause }) },
  );
}

const WHY: Readonly<Record<Shortage, string>> = {
  capacity: "no capacity",
  "not-offered": "not offered",
  "subnet-full": "no free address",
  quota: "quota",
};

function placeText({ candidate, kind }: Refusal): string {
  return `${describeCandidate(candidate)}: ${WHY[kind]}`;
}

export function quotaText({ candidate, fault }: Refusal, types: readonly TypeSize[], region: string): string {
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

import type { Instance as Ec2Instance } from "@aws-sdk/client-ec2";
import { Fault } from "../../src/base/fault.ts";
import { parseInstanceId } from "../../src/base/ids.ts";
import type { Instance } from "../../src/provider/index.ts";
import { fromEc2Tags } from "./tags.ts";

/** Someone asked for it: us, or an operator. */
const BY_USER = "Client.UserInitiatedShutdown";

/**
 * Whether an instance is as good as gone: EC2 has accepted its end, which cannot be undone, and takes its disks and
 * network interfaces with it. One that ended by itself is not: it failed, and its reason is worth telling.
 */
export function isGone(ec2: Ec2Instance): boolean {
  const state = ec2.State?.Name;
  if (state !== "shutting-down" && state !== "terminated") return false;
  const code = ec2.StateReason?.Code;
  return code === undefined || code === "" || code === BY_USER;
}

/** @param usePublicIp the nodes reach the VM by its public address, which EC2 gives some seconds after the private one */
export function toInstance(ec2: Ec2Instance, usePublicIp: boolean): Instance {
  if (ec2.InstanceId === undefined)
    throw new Fault("internal", "EC2 described an instance without an id", { provider: "aws" });
  const createdAt = ec2.LaunchTime ?? new Date(0);
  const state = stateOf(ec2);
  const reason = state === "failed" ? reasonOf(ec2) : undefined;
  return {
    ...{ id: parseInstanceId(ec2.InstanceId), ...fromEc2Tags(ec2.Tags ?? [], createdAt), state, createdAt },
    addresses: addressesOf(ec2, usePublicIp),
    ...(reason === undefined ? {} : { reason }),
  };
}

function stateOf(ec2: Ec2Instance): Instance["state"] {
  switch (ec2.State?.Name) {
    case "pending":
      return "pending";
    case "running":
      return "running";
    case "shutting-down":
      return isGone(ec2) ? "deleting" : "failed";
    default:
      // Ended, or stopped: a pod VM is never started again.
      return "failed";
  }
}

function reasonOf(ec2: Ec2Instance): string {
  const { Code = "", Message = "" } = ec2.StateReason ?? {};
  const said = Message.startsWith(Code) || Code === "" ? Message : `${Code}: ${Message}`;
  return `it is ${ec2.State?.Name}: ${said || ec2.StateTransitionReason || "EC2 gives no reason"}`;
}

function addressesOf(ec2: Ec2Instance, usePublicIp: boolean): readonly string[] {
  const primary = usePublicIp ? ec2.PublicIpAddress : ec2.PrivateIpAddress;
  if (primary === undefined || primary === "") return [];
  const ipv6 = (ec2.NetworkInterfaces ?? []).flatMap((nic) => (nic.Ipv6Addresses ?? []).map((a) => a.Ipv6Address));
  const all = [primary, ec2.PrivateIpAddress, ...ipv6].filter((a): a is string => a !== undefined && a !== "");
  return [...new Set(all)];
}

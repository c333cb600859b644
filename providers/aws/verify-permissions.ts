import type { Call } from "../../src/base/call.ts";
import { Fault } from "../../src/base/fault.ts";
import { newSandboxId } from "../../src/base/ids.ts";
import type { Finding, InstanceSpec } from "../../src/provider/index.ts";
import { listCandidates } from "./candidates.ts";
import type { AwsConfig } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";
import { kindOf } from "./faults.ts";
import { launchInput } from "./launch-input.ts";
import type { Launcher } from "./launcher.ts";
import { OWNER } from "./tags.ts";

/** No instance has it. */
const NOBODY = "i-00000000000000000";

/** Remedy when nothing came back. */
export const UNREACHABLE = "let this host reach EC2's API: through a NAT gateway, or a VPC endpoint for ec2";

/** Asks EC2 with dry runs whether it would do what the provider will ask for. */
export async function verifyPermissions(
  deps: { readonly api: Ec2Api; readonly config: AwsConfig; readonly launcher: Launcher },
  call: Call,
): Promise<Finding[]> {
  const { api } = deps;
  return Promise.all([
    launchFinding(deps, call),
    finding("list instances", ["ec2:DescribeInstances"], async () => {
      await api.describeInstances([{ Name: "instance-id", Values: [NOBODY] }], call);
    }),
    finding("end instances", ["ec2:TerminateInstances"], () =>
      api.terminateInstances(() => [NOBODY], call, { DryRun: true }),
    ),
    finding("read consoles", ["ec2:GetConsoleOutput"], async () => {
      await api.getConsoleOutput({ InstanceId: NOBODY, DryRun: true }, call);
    }),
  ]);
}

async function launchFinding(
  { api, config, launcher }: { readonly api: Ec2Api; readonly config: AwsConfig; readonly launcher: Launcher },
  call: Call,
): Promise<Finding> {
  return finding("launch instances", ["ec2:RunInstances", "ec2:CreateTags"], async () => {
    const image = await launcher.images.resolve(undefined, call);
    const [subnetId] = config.subnets;
    const places = subnetId === undefined ? [] : [{ subnetId, zone: "" }];
    const [candidate] = listCandidates([config.instanceType], places, config.market);
    if (candidate === undefined) return;
    await api.runInstances({ ...launchInput(sample(), candidate, image, config), DryRun: true }, call);
  });
}

async function finding(subject: string, permissions: readonly string[], ask: () => Promise<void>): Promise<Finding> {
  const ok: Finding = { subject, state: "ok", detail: `${permissions.join(" and ")} (dry run)` };
  try {
    await ask();
    return ok;
  } catch (e) {
    const kind = kindOf(e);
    // EC2 looks for the instance only when the caller may do it.
    if (kind === "dry-run" || kind === "not-found") return ok;
    const detail = Fault.from(e).fullMessage;
    if (kind !== "auth") {
      return { subject, state: "error", detail, remedy: kind === "transient" ? UNREACHABLE : "see the findings above" };
    }
    // A policy that is bound to tags cannot be tried on an instance that does not exist.
    const state = subject === "launch instances" || subject === "list instances" ? "error" : "warning";
    return { subject, state, detail, remedy: `allow ${permissions.join(" and ")}: see providers/aws/README.md` };
  }
}

function sample(): InstanceSpec {
  return {
    ...{ name: "kata-remote-check", sandboxId: newSandboxId(), vcpus: 0, memoryMiB: 0, gpus: 0 },
    tags: {
      cluster: "check",
      owner: OWNER,
      createOperation: `check-${newSandboxId()}`,
      created: new Date().toISOString(),
    },
    userData: Buffer.from("#cloud-config\n"),
  };
}

import type { NetworkSecurityGroup, SecurityRule, Subnet } from "@azure/arm-network";
import type { Call } from "../../src/base/call.ts";
import type { Finding } from "../../src/provider/index.ts";
import { failed } from "./finding.ts";
import { nameOf } from "./names.ts";
import type { VerifyDeps } from "./verify-deps.ts";

/** Port of the agent tunnel in the guest. Source: peer-pods wire contract §3.6. */
const GUEST_PORT = 15_150;
/** Of the pod network, in both directions. Source: IANA, vxlan. */
const VXLAN_PORT = 4789;
const FEW_ADDRESSES = 20;
/** Source: "Azure Virtual Network FAQ": the first four and the last of a subnet. */
const RESERVED = 5;

/** Subnets with their room, and whether nodes reach the guests. */
export async function verifyNetwork(deps: VerifyDeps, call: Call): Promise<Finding[]> {
  const { config } = deps;
  const ids = [...new Set([...config.subnets, ...config.extraSubnets])];
  const subnets = await Promise.all(ids.map((id) => readSubnet(id, deps, call)));
  const groups = new Set(
    config.securityGroup === undefined
      ? subnets.flatMap(({ subnet }) => subnet?.networkSecurityGroup?.id ?? [])
      : [config.securityGroup],
  );
  const open = await Promise.all([...groups].map((id) => groupFindings(id, deps, call)));
  const found = [...subnets.flatMap((s) => s.findings), ...open.flat()];
  if (groups.size > 0) return found;
  const detail = "no security group: whatever is in the network reaches the VMs, and they reach it";
  const remedy = `name a group in providers.azure.securityGroup that lets TCP ${GUEST_PORT} and UDP ${VXLAN_PORT} in from the nodes`;
  return [...found, { subject: "security group", state: "warning", detail, remedy }];
}

async function readSubnet(
  id: string,
  { api }: VerifyDeps,
  call: Call,
): Promise<{ readonly subnet: Subnet | undefined; readonly findings: Finding[] }> {
  const subject = `subnet ${nameOf(id)}`;
  const remedy = "correct providers.azure.subnets";
  try {
    const subnet = await api.getSubnet(id, call);
    if (subnet === undefined) {
      return { subnet, findings: [{ subject, state: "error", detail: `${id} is not there`, remedy }] };
    }
    return { subnet, findings: [roomOf(subject, subnet)] };
  } catch (e) {
    return { subnet: undefined, findings: [failed(subject, e, remedy)] };
  }
}

function roomOf(subject: string, subnet: Subnet): Finding {
  if ((subnet.delegations ?? []).length > 0) {
    const to = subnet.delegations?.map((d) => d.serviceName).join(", ");
    return { subject, state: "error", detail: `it is delegated to ${to}`, remedy: "name a subnet for VMs" };
  }
  const prefixes = subnet.addressPrefixes ?? [subnet.addressPrefix ?? ""];
  const size = prefixes.filter((p) => p.includes(".")).reduce((sum, p) => sum + 2 ** (32 - Number(p.split("/")[1])), 0);
  const free = size - RESERVED - (subnet.ipConfigurations ?? []).length;
  const detail = `${prefixes.join(", ")}, ${free} free addresses`;
  if (free >= FEW_ADDRESSES) return { subject, state: "ok", detail };
  const remedy = "add a subnet to providers.azure.subnets";
  return { subject, state: free <= 0 ? "error" : "warning", detail, remedy };
}

async function groupFindings(id: string, { api }: VerifyDeps, call: Call): Promise<Finding[]> {
  const subject = "security group";
  const remedy = "correct providers.azure.securityGroup";
  try {
    const group = await api.getSecurityGroup(id, call);
    if (group === undefined) return [{ subject, state: "error", detail: `${id} is not there`, remedy }];
    return [portFinding(group, "Tcp", GUEST_PORT, "error"), portFinding(group, "Udp", VXLAN_PORT, "warning")];
  } catch (e) {
    return [failed(subject, e, remedy)];
  }
}

function portFinding(
  group: NetworkSecurityGroup,
  protocol: "Tcp" | "Udp",
  port: number,
  state: "error" | "warning",
): Finding {
  const subject = `${protocol.toUpperCase()} ${port}`;
  const name = group.name ?? "";
  const rules = [...(group.securityRules ?? []), ...(group.defaultSecurityRules ?? [])]
    .filter((r) => r.direction === "Inbound" && covers(r, protocol, port))
    .sort((a, b) => (a.priority ?? 0) - (b.priority ?? 0));
  // Rules for the load balancer's probes say nothing about nodes.
  const first = rules.find((r) => r.access === "Deny" || !sourcesOf(r).every((s) => s === "AzureLoadBalancer"));
  if (first === undefined || first.access === "Deny") {
    const by = first === undefined ? "no rule lets it in" : `rule ${first.name} keeps it out`;
    const what = port === GUEST_PORT ? "nodes cannot reach the VMs" : "the pod network between node and VM cannot work";
    const remedy = `az network nsg rule create --nsg-name ${name} -g <group> -n kata-remote-${port} --priority 200 --protocol ${protocol} --destination-port-ranges ${port} --source-address-prefixes <the nodes' subnet>`;
    return { subject, state, detail: `security group ${name}: ${by}, so that ${what}`, remedy };
  }
  const sources = sourcesOf(first);
  if (sources.some((s) => ["*", "Internet", "0.0.0.0/0"].includes(s))) {
    const detail = `security group ${name}: rule ${first.name} opens it to every address`;
    return { subject, state: "warning", detail, remedy: "let the nodes' subnet in only" };
  }
  return {
    subject,
    state: "ok",
    detail: `security group ${name}: rule ${first.name} lets it in from ${sources.join(", ")}`,
  };
}

function covers(rule: SecurityRule, protocol: string, port: number): boolean {
  if (rule.protocol !== "*" && rule.protocol?.toLowerCase() !== protocol.toLowerCase()) return false;
  const ranges = [rule.destinationPortRange ?? "", ...(rule.destinationPortRanges ?? [])].filter((r) => r !== "");
  return ranges.some((range) => {
    if (range === "*") return true;
    const [from = 0, to = from] = range.split("-").map(Number);
    return from <= port && port <= to;
  });
}

function sourcesOf(rule: SecurityRule): readonly string[] {
  return [rule.sourceAddressPrefix ?? "", ...(rule.sourceAddressPrefixes ?? [])].filter((s) => s !== "");
}

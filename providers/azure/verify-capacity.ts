import type { Usage } from "@azure/arm-compute";
import type { Call } from "../../src/base/call.ts";
import type { Finding } from "../../src/provider/index.ts";
import { listCandidates } from "./candidates.ts";
import { failed } from "./finding.ts";
import { PRICES_AS_OF, tablePriceUsd } from "./price-table.ts";
import { hourlyPrice } from "./prices.ts";
import { allowedSizes, asPattern, fittingSizes, unsuitable, type VmSize } from "./sizes.ts";
import type { VerifyDeps } from "./verify-deps.ts";

/** VMs that a quota should have room for. */
const FEW_VMS = 10;

/** Sizes, where they are offered, what they cost, and what the subscription's quotas have room for. */
export async function verifyCapacity(deps: VerifyDeps, call: Call): Promise<Finding[]> {
  const { launcher, config } = deps;
  const subject = "VM sizes";
  try {
    const all = await launcher.sizes(call);
    const allowed = allowedSizes(all, config);
    const [first] = fittingSizes(allowed, { vcpus: 0, memoryMiB: 0, gpus: 0 }, config);
    const usable = allowed.filter((s) => unsuitable(s, config) === undefined);
    const detail = `${usable.length} of ${allowed.length} allowed ones can be used, default ${first.name}`;
    return [
      { subject, state: "ok", detail },
      ...patternFindings(all, deps),
      ...zoneFindings(first, deps),
      ...encryptionFindings(usable, deps),
      ...(await quotaFindings(first, deps, call)),
      ...(await priceFindings(first, deps, call)),
    ];
  } catch (e) {
    const remedy =
      config.tee === "none"
        ? "correct providers.azure.size"
        : 'choose a size of DCasv5, ECasv5, DCasv6, ECasv6 (SNP), DCesv6 or ECesv6 (TDX) that the location has, or set providers.azure.tee to "none"';
    return [failed(subject, e, remedy)];
  }
}

function patternFindings(all: readonly VmSize[], { config }: VerifyDeps): Finding[] {
  const idle = [config.size, ...config.sizes].filter((p) => !all.some((s) => asPattern(p).test(s.name)));
  if (idle.length === 0) return [];
  const detail = `${config.location} has no ${idle.join(", ")}`;
  return [{ subject: "VM sizes", state: "warning", detail, remedy: "correct providers.azure.sizes" }];
}

function zoneFindings(size: VmSize, { config }: VerifyDeps): Finding[] {
  const without = config.zones.filter((zone) => !size.zones.includes(zone));
  if (without.length === 0) return [];
  const detail = `${size.name} is not offered in zone ${without.join(", ")}`;
  const state = listCandidates([size], config).length === 0 ? "error" : "warning";
  return [{ subject: "zones", state, detail, remedy: "remove these zones, or allow another size" }];
}

function encryptionFindings(usable: readonly VmSize[], { config }: VerifyDeps): Finding[] {
  const without = config.encryptionAtHost ? usable.filter((s) => !s.encryptionAtHost) : [];
  if (without.length === 0) return [];
  const detail = `${without.map((s) => s.name).join(", ")} cannot be had with it`;
  const remedy = "allow other sizes, or set providers.azure.encryptionAtHost to false";
  return [{ subject: "encryption at host", state: "error", detail, remedy }];
}

async function quotaFindings(size: VmSize, { api, config }: VerifyDeps, call: Call): Promise<Finding[]> {
  const subject = "quota";
  try {
    const usages = await api.listUsage(call);
    const regular = [size.family, "cores"];
    const names = [
      ...(config.market === "spot" ? ["lowPriorityCores"] : regular),
      ...(config.market === "spot-then-regular" ? ["lowPriorityCores"] : []),
    ];
    return names.flatMap((name) => {
      const usage = usages.find((u) => u.name.value?.toLowerCase() === name.toLowerCase());
      return usage === undefined ? [] : [quotaFinding(subject, name, usage, size, config.location)];
    });
  } catch (e) {
    return [failed(subject, e, "allow Microsoft.Compute/locations/usages/read on the subscription")];
  }
}

function quotaFinding(subject: string, name: string, usage: Usage, size: VmSize, location: string): Finding {
  const { currentValue, limit } = usage;
  const room = Math.floor((limit - currentValue) / Math.max(1, size.vcpus));
  const detail = `${name} in ${location}: ${currentValue} of ${limit} vCPUs are used, room for ${Math.max(0, room)} VMs of ${size.name}`;
  if (room >= FEW_VMS) return { subject, state: "ok", detail };
  return { subject, state: room <= 0 ? "error" : "warning", detail, remedy: "ask for more in the portal under Quotas" };
}

async function priceFindings(size: VmSize, deps: VerifyDeps, call: Call): Promise<Finding[]> {
  const { config } = deps;
  if (config.prices === "off") return [];
  const subject = "price";
  const spot = config.market !== "regular";
  if (config.prices === "table") return [{ subject, state: "ok", detail: fromTable(size.name, spot, config.location) }];
  try {
    const price = await hourlyPrice(size.name, spot, deps, call);
    const detail =
      price === undefined
        ? `none is published for ${size.name} in ${config.location}`
        : `${size.name}${spot ? " (spot)" : ""}: ${price} USD per hour`;
    return [{ subject, state: "ok", detail }];
  } catch (e) {
    const finding = failed(subject, e, 'set providers.azure.prices to "off"');
    return [{ ...finding, state: "warning" }]; // nothing depends on it
  }
}

function fromTable(size: string, spot: boolean, location: string): string {
  const price = spot ? undefined : tablePriceUsd(size, location);
  if (price !== undefined) return `${size}: ${price.toFixed(3)} USD per hour (list of ${PRICES_AS_OF})`;
  const what = spot ? "spot prices" : `${size} in ${location}`;
  return `the shipped list has none for ${what}: providers.azure.prices = "retail-api" asks Azure's`;
}

/** When the prices below were written down: they are for an estimate, Azure's own list is what counts. */
export const PRICES_AS_OF = "2025-02";

const AMERICA: readonly string[] = ["eastus", "eastus2", "westus2", "westus3"];

/**
 * USD per hour of a family's size with 2 vCPUs, pay as you go, Linux; its other sizes cost in proportion.
 * Of DCas_v5 an open project's list of 2025-02 was copied as figures (88.33, 93.44 and 97.82 USD for 730 hours); of the
 * others only D4s_v5 and E8s_v5 were compared with a published page. Nothing was compared with Azure's own list.
 */
const FAMILIES: Readonly<Record<string, readonly (readonly [locations: readonly string[], usd: number])[]>> = {
  DCas_v5: [
    [AMERICA, 0.121],
    [["northeurope"], 0.128],
    [["westeurope"], 0.134],
  ],
  Das_v5: [[AMERICA, 0.086]],
  Ds_v5: [[AMERICA, 0.096]],
  Eas_v5: [[AMERICA, 0.113]],
  Es_v5: [[AMERICA, 0.126]],
};

/** List price of a VM size, USD per hour, without its disks; undefined where this table has none. */
export function tablePriceUsd(size: string, location: string): number | undefined {
  // Constrained ones (E4-2as_v5) cost what their whole size does, so they are left to Azure's list.
  const [, letters, vcpus, features, version] = /^Standard_([A-Z]+)(\d+)([a-z]*)_(v\d+)$/.exec(size) ?? [];
  const prices = FAMILIES[`${letters}${features}_${version}`] ?? [];
  const usd = prices.find(([locations]) => locations.includes(location))?.[1];
  return usd === undefined ? undefined : (usd * Number(vcpus)) / 2;
}

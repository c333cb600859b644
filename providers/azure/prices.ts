import type { Call } from "../../src/base/call.ts";
import type { AzureConfig } from "./config.ts";
import { faultOf, toFault } from "./faults.ts";
import { httpGet } from "./http-get.ts";

const MAX_BYTES = 4 << 20;
/** Source: "Azure Retail Prices overview": no credentials, one address for the public cloud. */
const ADDRESS = "https://prices.azure.com/api/retail/prices?api-version=2023-01-01-preview";

interface RetailPrice {
  readonly retailPrice: number;
  readonly skuName: string;
  readonly productName: string;
  readonly unitOfMeasure: string;
}

/** USD per hour of a Linux VM as published. @returns undefined when none is */
export async function hourlyPrice(
  size: string,
  spot: boolean,
  { config, address = ADDRESS }: { readonly config: AzureConfig; readonly address?: string },
  call: Call,
): Promise<number | undefined> {
  const filter = `armRegionName eq '${config.location}' and armSkuName eq '${size}' and priceType eq 'Consumption' and serviceName eq 'Virtual Machines'`;
  const url = `${address}&$filter=${encodeURIComponent(filter)}`;
  const action = "read prices";
  const options = { timeoutMs: config.requestTimeoutMs, maxBytes: MAX_BYTES };
  const { status, body } = await httpGet(url, options, call).catch((e: unknown) => {
    throw toFault(e, action, {});
  });
  if (status !== 200) throw faultOf({ code: `Status${status}`, message: "no prices", status }, action, {});
  return cheapest((JSON.parse(body.toString()) as { readonly Items?: readonly RetailPrice[] }).Items ?? [], spot);
}

/** Windows and low-priority prices are in the same list, told apart by words only. */
export function cheapest(items: readonly RetailPrice[], spot: boolean): number | undefined {
  const fitting = items
    .filter((i) => i.unitOfMeasure === "1 Hour" && !/windows/i.test(i.productName))
    .filter((i) => !/low priority/i.test(i.skuName) && /spot/i.test(i.skuName) === spot);
  return fitting.length === 0 ? undefined : Math.min(...fitting.map((i) => i.retailPrice));
}

/** What the stock adaptor's document names and ours does not. Apart from its reader, which a boot of ours need not load. */
const MARK = "/run/peerpod/apf.json";

/** Whether user-data is the stock adaptor's. */
export function isStockSeed(text: string): boolean {
  return text.includes(MARK);
}

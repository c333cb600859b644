import { isIPv4 } from "node:net";
import { Fault } from "../../base/fault.ts";
import type { IpLink, IpRoute } from "./read-netns.ts";

/** What is asked of this host's network. */
export interface HostNetwork {
  /** Default routes of the main table, IPv4. */
  readonly defaultRoutes: () => Promise<readonly IpRoute[]>;
  /** With its IPv4 addresses. */
  readonly link: (device: string) => Promise<IpLink | undefined>;
}

/**
 * This host's end of tunnels, for guests that are told it before they have an address: the first IPv4 address of the
 * default route's interface, or of a named one. One that is not the default route's is a network of its own for tunnels.
 * @returns the address as `address/length`
 * @throws Fault failed_precondition with the remedy
 * Source: wire contract §3.11
 */
export async function workerAddress(
  host: HostNetwork,
  hostInterface: string | undefined,
): Promise<{ readonly address: string; readonly dedicated: boolean }> {
  const routes = await host.defaultRoutes();
  const primary = [...routes].sort((a, b) => (a.metric ?? 0) - (b.metric ?? 0))[0]?.dev;
  const device = hostInterface ?? primary;
  if (device === undefined) {
    const message =
      "this host has no default IPv4 route, by which the worker's end of tunnels is found: name the interface in stock.hostInterface";
    throw new Fault("failed_precondition", message);
  }
  const link = await host.link(device).catch((cause: unknown) => {
    const message = `this host's interface ${device} cannot be read: correct stock.hostInterface`;
    throw new Fault("failed_precondition", message, {}, { cause });
  });
  const found = link?.addr_info?.find((a) => isIPv4(a.local));
  if (found === undefined)
    throw new Fault(
      "failed_precondition",
      `this host's interface ${device} has no IPv4 address, which the stock forwarder needs`,
    );
  return { address: `${found.local}/${found.prefixlen}`, dedicated: primary !== undefined && device !== primary };
}

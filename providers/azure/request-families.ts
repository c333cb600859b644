import type { RequestFamily } from "../../src/provider/index.ts";

/**
 * Published limits. Every request passes two: Azure Resource Manager's, per subscription, principal and region ("Understand
 * how Azure Resource Manager throttles requests": reads 250 and 25/s, writes and deletes 200 and 10/s), and the service's.
 * Compute refills its bucket for creating VMs with 500 a minute ("Throttling limits for virtual machines"), which is the
 * tighter of the two. Each family has the tighter burst and the tighter rate.
 */
export const REQUEST_FAMILIES = {
  read: { requests: { burst: 250, perSecond: 25 } },
  write: { requests: { burst: 200, perSecond: 500 / 60 } },
  delete: { requests: { burst: 200, perSecond: 10 } },
} as const satisfies Readonly<Record<string, RequestFamily>>;

export type RequestFamilyName = keyof typeof REQUEST_FAMILIES;

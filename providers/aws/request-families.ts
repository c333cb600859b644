import type { RequestFamily } from "../../src/provider/index.ts";

/**
 * Published limits per account and region; each action has a bucket of its own. Source: EC2 developer guide, "Request
 * throttling for the Amazon EC2 API" (request and resource token limits).
 */
const READ: RequestFamily = { requests: { burst: 100, perSecond: 20 } };

export const REQUEST_FAMILIES = {
  RunInstances: { requests: { burst: 5, perSecond: 2 }, instances: { burst: 1000, perSecond: 2 } },
  TerminateInstances: { requests: { burst: 100, perSecond: 5 } },
  CreateTags: { requests: { burst: 100, perSecond: 10 } },
  AttachVolume: { requests: { burst: 50, perSecond: 5 } },
  DetachVolume: { requests: { burst: 50, perSecond: 5 } },
  GetConsoleOutput: READ,
  DescribeInstances: READ,
  DescribeInstanceTypes: READ,
  DescribeInstanceTypeOfferings: READ,
  DescribeImages: READ,
  DescribeSubnets: READ,
  DescribeVolumes: READ,
  DescribeSecurityGroups: READ,
  DescribeKeyPairs: READ,
  DescribeLaunchTemplateVersions: READ,
} as const satisfies Readonly<Record<string, RequestFamily>>;

export type RequestFamilyName = keyof typeof REQUEST_FAMILIES;

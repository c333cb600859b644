import type { Action } from "./action.ts";
import {
  describeImages,
  describeInstanceTypeOfferings,
  describeInstanceTypes,
  describeKeyPairs,
  describeLaunchTemplateVersions,
  describeSecurityGroups,
  describeSubnets,
} from "./catalogue.ts";
import { createTags, describeNetworkInterfaces, describeTags, describeVolumes } from "./children.ts";
import { describeInstances, getConsoleOutput, terminateInstances } from "./instances.ts";
import { runInstances } from "./run-instances.ts";

/** What the endpoint can do. */
export const ACTIONS: ReadonlyMap<string, Action> = new Map<string, Action>([
  ["RunInstances", runInstances],
  ["DescribeInstances", describeInstances],
  ["TerminateInstances", terminateInstances],
  ["GetConsoleOutput", getConsoleOutput],
  ["DescribeInstanceTypes", describeInstanceTypes],
  ["DescribeInstanceTypeOfferings", describeInstanceTypeOfferings],
  ["DescribeImages", describeImages],
  ["DescribeSubnets", describeSubnets],
  ["DescribeSecurityGroups", describeSecurityGroups],
  ["DescribeKeyPairs", describeKeyPairs],
  ["DescribeLaunchTemplateVersions", describeLaunchTemplateVersions],
  ["DescribeVolumes", describeVolumes],
  ["DescribeNetworkInterfaces", describeNetworkInterfaces],
  ["CreateTags", createTags],
  ["DescribeTags", describeTags],
]);

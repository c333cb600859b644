import type { Action } from "./action.ts";
import {
  describeInstanceTypeOfferings,
  describeInstanceTypes,
  describeKeyPairs,
  describeLaunchTemplateVersions,
  describeSecurityGroups,
  describeSubnets,
} from "./catalogue.ts";
import { createTags, deleteTags, describeNetworkInterfaces, describeTags, describeVolumes } from "./children.ts";
import { deregisterImage, describeImages, registerImage } from "./images.ts";
import { describeInstances, getConsoleOutput, terminateInstances } from "./instances.ts";
import { runInstances } from "./run-instances.ts";
import { deleteSnapshot, describeSnapshots } from "./snapshots.ts";
import { attachVolume, createVolume, deleteVolume, detachVolume } from "./volumes.ts";

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
  ["DeleteTags", deleteTags],
  ["DescribeTags", describeTags],
  ["RegisterImage", registerImage],
  ["DeregisterImage", deregisterImage],
  ["DescribeSnapshots", describeSnapshots],
  ["DeleteSnapshot", deleteSnapshot],
  ["CreateVolume", createVolume],
  ["AttachVolume", attachVolume],
  ["DetachVolume", detachVolume],
  ["DeleteVolume", deleteVolume],
]);

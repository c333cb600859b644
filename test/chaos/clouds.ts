import { ArmCloud } from "./arm-cloud.ts";
import type { Cloud } from "./cloud.ts";
import { Ec2Cloud } from "./ec2-cloud.ts";
import type { GuestPool } from "./guests.ts";
import { LocalCloud } from "./local-cloud.ts";
import type { Timeline } from "./timeline.ts";

/** What a cloud may need to be opened. */
export interface CloudDeps {
  /** Of the world that it is for. */
  readonly folder: string;
  readonly timeline: Timeline;
  /** Processes that play VMs. */
  readonly pool: GuestPool;
  /** Directory of the pod VM image for QEMU; made when it is first asked for. */
  readonly vmImage: () => Promise<string>;
}

/** Every cloud that cases can run with: a line here is all that a further one needs beside its class. */
export const CLOUDS = {
  /** A test account whose instances are processes. */
  ec2: (deps: CloudDeps): Promise<Cloud> => Ec2Cloud.open(deps),
  /** A test subscription of Azure whose VMs are processes. */
  arm: (deps: CloudDeps): Promise<Cloud> => ArmCloud.open(deps),
  /** QEMU VMs of this host. */
  local: async ({ folder, vmImage, timeline }: CloudDeps): Promise<Cloud> =>
    new LocalCloud({ folder, imageDir: await vmImage(), timeline }),
} as const;
export type CloudKind = keyof typeof CLOUDS;

/** Whether its VMs are real ones, which take their time and want the machine for themselves. */
export function hasRealVms(kind: CloudKind): boolean {
  return kind === "local";
}

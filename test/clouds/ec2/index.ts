export type { InjectedFault } from "../faults.ts";
export type { Ec2Account, Image, InstanceHost, Knobs, LaunchTemplate } from "./account.ts";
export { type Boto, installBoto, type NoBoto } from "./botocore.ts";
export { type Clock, ManualClock } from "./clock.ts";
export { Ec2Endpoint, type ListenOptions } from "./endpoint.ts";
export type { SeenRequest } from "./fault-plan.ts";
export { MetadataService } from "./metadata.ts";
export { Ec2Model } from "./model.ts";
export { AwsWorld, WORKING_CONFIG } from "./provider-fixture.ts";
export {
  Ec2Service,
  type EndpointOptions,
  TEST_CREDENTIALS,
  type WireReply,
  type WireRequest,
} from "./service.ts";
export type { Credentials } from "./signature.ts";
export { type Ec2CloudOptions, Ec2WithMachines } from "./virtual-machines.ts";

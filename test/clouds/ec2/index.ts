export type { Ec2Account, Image, InstanceHost, Knobs, LaunchTemplate } from "./account.ts";
export { type Boto, installBoto, type NoBoto } from "./botocore.ts";
export { type Clock, ManualClock } from "./clock.ts";
export { Ec2Endpoint } from "./endpoint.ts";
export { Ec2Model } from "./model.ts";
export { AwsWorld, WORKING_CONFIG } from "./provider-fixture.ts";
export {
  Ec2Service,
  type EndpointOptions,
  type InjectedFault,
  type SeenRequest,
  TEST_CREDENTIALS,
  type WireReply,
  type WireRequest,
} from "./service.ts";
export type { Credentials } from "./signature.ts";

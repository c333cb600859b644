export { type Bucket, type Clock, ManualClock, realClock, TokenBucket } from "../ec2/clock.ts";

import type { Volume } from "@aws-sdk/client-ec2";
import type { Call } from "../../src/base/call.ts";
import { type Clock, sleepOn } from "../../src/base/clock.ts";
import { Fault } from "../../src/base/fault.ts";
import type { InstanceId } from "../../src/base/ids.ts";
import type { VolumeAttachment } from "../../src/provider/index.ts";
import { type AwsConfig, DATA_DEVICES } from "./config.ts";
import type { Ec2Api } from "./ec2-api.ts";

const ID = /^vol-[0-9a-f]{8,17}$/;
const POLL_MS = 1000;
/** How long one call waits for an instance to run. */
const PATIENCE_MS = 60_000;
/** EC2's codes for "not now": the instance does not run yet or is not known everywhere, the volume is being made. */
const NOT_YET: ReadonlySet<unknown> = new Set([
  "IncorrectState",
  "IncorrectInstanceState",
  "InvalidInstanceID.NotFound",
]);
/** Of a volume that is not attached, or not there: nothing to let go of. */
const LOOSE: ReadonlySet<unknown> = new Set([
  ...["IncorrectState", "InvalidAttachment.NotFound", "InvalidVolume.NotFound", "InvalidInstanceID.NotFound"],
]);

export interface VolumesDeps {
  readonly api: Ec2Api;
  readonly config: AwsConfig;
  readonly clock: Clock;
}

/** EBS volumes that outlive instances. EC2 keeps them when an instance ends: what AttachVolume attaches is not deleted with it. */
export class Volumes implements VolumeAttachment {
  readonly #deps: VolumesDeps;

  constructor(deps: VolumesDeps) {
    this.#deps = deps;
  }

  check(volumeId: string): void {
    if (ID.test(volumeId)) return;
    const message = `"${volumeId}" is no EBS volume: its id is vol- and 8 to 17 hexadecimal digits`;
    throw new Fault("invalid_argument", message, { provider: "aws", kind: "bad-request" });
  }

  async attach(id: InstanceId, volumeIds: readonly string[], call: Call): Promise<void> {
    for (const [index, volumeId] of volumeIds.entries()) await this.#attach(id, volumeId, this.#device(index), call);
  }

  async detach(id: InstanceId, volumeIds: readonly string[], call: Call): Promise<void> {
    for (const VolumeId of volumeIds) {
      try {
        await this.#deps.api.detachVolume({ VolumeId, InstanceId: id }, call);
      } catch (e) {
        if (!LOOSE.has(codeOf(e))) throw e;
      }
    }
  }

  /** The zone that all of them are in. @throws Fault invalid_argument when one is not there, or they are in several */
  async zone(volumeIds: readonly string[], call: Call): Promise<string> {
    const found = await this.#describe(volumeIds, call);
    const zones = [...new Set(found.map((v) => v.AvailabilityZone ?? ""))];
    const [zone] = zones;
    if (zone !== undefined && zones.length === 1) return zone;
    const message = `volumes ${volumeIds.join(", ")} are in zones ${zones.join(", ")}: one VM can have those of one zone only`;
    throw new Fault("invalid_argument", message, { provider: "aws", kind: "bad-request" });
  }

  async #describe(volumeIds: readonly string[], call: Call): Promise<readonly Volume[]> {
    try {
      return await this.#deps.api.describeVolumes(volumeIds, call);
    } catch (e) {
      if (codeOf(e) !== "InvalidVolume.NotFound") throw e;
      const message = `one of the volumes ${volumeIds.join(", ")} is not in ${this.#deps.config.region}`;
      throw new Fault("invalid_argument", message, { provider: "aws", kind: "bad-request" }, { cause: e });
    }
  }

  async #attach(id: InstanceId, volumeId: string, device: string, call: Call): Promise<void> {
    const { api, clock } = this.#deps;
    for (const end = clock.now().getTime() + PATIENCE_MS; ; await sleepOn(clock, POLL_MS, call)) {
      try {
        await api.attachVolume({ InstanceId: id, VolumeId: volumeId, Device: device }, call);
        return;
      } catch (e) {
        const code = codeOf(e);
        if (code === "VolumeInUse") {
          const [volume] = await this.#describe([volumeId], call);
          const owners = (volume?.Attachments ?? []).filter((a) => a.State !== "detached");
          if (owners.some((a) => a.InstanceId === id && a.State !== "detaching")) return;
          throw inUse(volumeId, owners[0]?.InstanceId, e);
        }
        if (!NOT_YET.has(code) || clock.now().getTime() > end) throw e;
      }
    }
  }

  /** From the end of the list: the image's and dataVolumes have its beginning. */
  #device(index: number): string {
    const { dataVolumes } = this.#deps.config;
    const device = DATA_DEVICES.at(-1 - index);
    if (device !== undefined && index + dataVolumes.length < DATA_DEVICES.length) return device;
    const message = `a pod of more than ${DATA_DEVICES.length - dataVolumes.length} volumes finds no device names at EC2`;
    throw new Fault("invalid_argument", message, { provider: "aws", kind: "bad-request" });
  }
}

function codeOf(thrown: unknown): unknown {
  return thrown instanceof Fault ? thrown.context.awsCode : undefined;
}

function inUse(volumeId: string, owner: string | undefined, cause: unknown): Fault {
  const where = owner === undefined ? "is not ready to be attached" : `is attached to ${owner} still`;
  const message = `volume ${volumeId} ${where}: it is tried again`;
  return new Fault("unavailable", message, { provider: "aws", kind: "transient" }, { cause, retryable: true });
}

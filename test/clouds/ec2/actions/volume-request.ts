import type { Ec2Account, Image } from "../account.ts";
import { ApiError, notImplemented } from "../api-error.ts";
import { stateOf } from "../ebs/operations.ts";
import type { Params } from "../query.ts";

/** What a request says of a volume. */
export interface VolumeRequest {
  readonly sizeGiB?: number | undefined;
  readonly type?: string | undefined;
  readonly iops?: number | undefined;
  readonly throughput?: number | undefined;
  readonly snapshotId?: string | undefined;
  readonly encrypted?: boolean | undefined;
  readonly kmsKeyId?: string | undefined;
}

export interface DeviceRequest extends VolumeRequest {
  readonly device: string;
  readonly deleteOnTermination?: boolean | undefined;
}

/** Volume sizes, GiB. Source: EBS user guide, "Amazon EBS volume types". */
const SIZES: Readonly<Record<string, readonly [min: number, max: number]>> = {
  gp2: [1, 16_384],
  gp3: [1, 65_536],
  io1: [4, 16_384],
  io2: [4, 65_536],
  st1: [125, 16_384],
  sc1: [125, 16_384],
  standard: [1, 1024],
};

/** The block devices of a launch or of an image. @throws ApiError as EC2 refuses them */
export function readDevices(account: Ec2Account, params: Params, image?: Image): DeviceRequest[] {
  const names = new Set<string>();
  return params.list("BlockDeviceMapping").map((mapping) => {
    const device = mapping.need("DeviceName");
    if (names.has(device)) throw new ApiError("InvalidBlockDeviceMapping", `${device} is mapped twice`);
    names.add(device);
    const ebs = mapping.child("Ebs");
    if (ebs === undefined) throw notImplemented("block devices that are not EBS volumes");
    const deleteOnTermination = ebs.flag("DeleteOnTermination");
    const inImage = image?.devices.find((d) => d.device === device);
    const asked = readVolume(account, fieldsOf(ebs), inImage);
    return { device, ...asked, deleteOnTermination };
  });
}

function fieldsOf(ebs: Params): VolumeRequest {
  return {
    ...{ sizeGiB: ebs.integer("VolumeSize"), type: ebs.text("VolumeType"), iops: ebs.integer("Iops") },
    ...{ throughput: ebs.integer("Throughput"), encrypted: ebs.flag("Encrypted"), kmsKeyId: ebs.text("KmsKeyId") },
    snapshotId: ebs.text("SnapshotId"),
  };
}

/** @param inImage what the image has for it @throws ApiError as EC2 refuses sizes and combinations */
export function readVolume(
  account: Ec2Account,
  asked: VolumeRequest,
  inImage?: { readonly snapshotId: string; readonly sizeGiB: number },
): VolumeRequest {
  const { sizeGiB, type, iops, throughput, encrypted, kmsKeyId, snapshotId } = asked;
  const snapshot = snapshotId === undefined ? inImage : { snapshotId, sizeGiB: snapshotSize(account, snapshotId) };
  if (snapshot === undefined && sizeGiB === undefined) {
    throw new ApiError("MissingParameter", "The request must contain the parameter size or snapshotId");
  }
  if (snapshot !== undefined && sizeGiB !== undefined && sizeGiB < snapshot.sizeGiB) {
    throw new ApiError(
      "InvalidBlockDeviceMapping",
      `Volume of size ${sizeGiB}GB is smaller than snapshot '${snapshot.snapshotId}', expect size >= ${snapshot.sizeGiB}GB`,
    );
  }
  const [min, max] = SIZES[type ?? "gp2"] ?? [1, 0];
  if (sizeGiB !== undefined && (sizeGiB < min || sizeGiB > max))
    throw new ApiError("InvalidParameterValue", `Volume of ${sizeGiB}GiB is invalid; minimum is ${min}GiB.`);
  if (throughput !== undefined && type !== "gp3")
    throw new ApiError("InvalidParameterCombination", "The parameter throughput needs volume type gp3");
  if (iops !== undefined && !["gp3", "io1", "io2"].includes(type ?? ""))
    throw new ApiError(
      "InvalidParameterCombination",
      `The parameter iops is not supported for ${type ?? "gp2"} volumes.`,
    );
  if (iops === undefined && (type === "io1" || type === "io2"))
    throw new ApiError("MissingParameter", `The request must contain the parameter iops for ${type} volumes.`);
  if (kmsKeyId !== undefined && encrypted !== true)
    throw new ApiError(
      "InvalidParameterDependency",
      "The parameter KmsKeyId requires the parameter Encrypted to be set.",
    );
  return asked;
}

/** @returns its volume's size, GiB @throws ApiError when it is not there, or not usable yet */
export function snapshotSize(account: Ec2Account, id: string): number {
  const inImage = account.images.flatMap((i) => i.devices).find((d) => d.snapshotId === id);
  const snapshot = account.snapshots.all.get(id);
  if (!/^snap-[0-9a-f]{8,17}$/.test(id)) throw new ApiError("InvalidSnapshotID.Malformed", `Invalid id: "${id}"`);
  if (snapshot === undefined && inImage === undefined)
    throw new ApiError("InvalidSnapshot.NotFound", `The snapshot '${id}' does not exist.`);
  if (snapshot !== undefined && stateOf(account, snapshot) !== "completed")
    throw new ApiError("IncorrectState", `The snapshot '${id}' is not completed`);
  return snapshot?.sizeGiB ?? inImage?.sizeGiB ?? 0;
}
